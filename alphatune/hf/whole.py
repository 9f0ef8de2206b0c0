"""Whether weights are whole: what transformers would draw at random, or leave aside, is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from alphatune.errors import UserError

_MASK = re.compile(r"\.(masked_bias|attn\.bias|attention\.bias|inv_freq)$")  # buffers that old checkpoints hold


def check(model: Any, missing: Iterable[str], unexpected: Iterable[str], needed: str = "") -> None:
    """Refuse weights that lack parts of their model or hold more blocks: transformers would go on with random ones.

    Args:
        missing: what must not be.
        needed: said after what is missing.

    Raises:
        UserError: there are such parts.
    """
    if lacking := sorted(missing):
        raise UserError(f"the weights lack {lacking[0]} ({len(lacking)} in all) of {type(model).__name__}{needed}")
    # a head may be left out; a numbered part belongs to the blocks
    unused = sorted(key for key in unexpected if re.search(r"\.\d+\.", f".{key}") and not _MASK.search(key))
    if unused:
        raise UserError(
            f"{type(model).__name__} as config.json describes it has no place for {unused[0]} "
            f"({len(unused)} in all): config.json belongs to another model"
        )
