"""A dense weight that is kept between calls, until the bits or scales it came from change."""

from __future__ import annotations

from torch import Tensor


class KeptWeight:
    """W^T of one layer with what it was rebuilt from."""

    def __init__(self) -> None:
        self._of: tuple[tuple[Tensor | None, int], ...] = ()
        self._weight: Tensor | None = None

    def find(self, *parts: Tensor | None) -> Tensor | None:
        """The weight that was put for these very tensors, if none of them was written to since."""
        same = len(parts) == len(self._of) and all(
            part is before and _version(part) == version
            for part, (before, version) in zip(parts, self._of, strict=True)
        )
        return self._weight if same else None

    def put(self, weight: Tensor, *parts: Tensor | None) -> Tensor:
        """Keep `weight` for these tensors, unless torch does not count how often they are written to."""
        if not any(part is not None and part.is_inference() for part in parts):
            self._of, self._weight = tuple((part, _version(part)) for part in parts), weight
        return weight

    def drop(self) -> None:
        """Forget the weight."""
        self._of, self._weight = (), None


def _version(part: Tensor | None) -> int:
    """How often a tensor was written to."""
    return -1 if part is None or part.is_inference() else part._version
