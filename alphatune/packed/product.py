"""x W^T and W^T from bits and scales, by the fastest path that this machine has; no gradients.

With the package `llvmlite` the bits are multiplied by machine code made for the CPU (`alphatune.packed.kernels`);
on a GPU Triton does the same (`alphatune.packed.kernels.gpu`). Without these packages, and on other devices, torch
rebuilds the weight.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import warnings
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from alphatune.errors import UserError
from alphatune.native.presence import fast
from alphatune.quant.grouping import Grouping
from alphatune.quant.packing import WORD, blocks, sign_bits, times_codes

_PLAIN = (Tensor, nn.Parameter)
Path = Callable[..., Tensor] | Literal["dense"] | None


@functools.cache
def fast_on_gpu(device: torch.device) -> bool:
    """Whether Triton can make code for this GPU (NVIDIA's from Ampere on); ALPHATUNE_KERNELS=0 forbids it here too."""
    allowed = os.environ.get("ALPHATUNE_KERNELS") != "0" and importlib.util.find_spec("triton") is not None
    return allowed and device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def looked_up() -> int | None:
    """How many inputs' signed sums are looked up at once on this CPU, 4 or 3; None where none are."""
    if not fast():
        return None
    from alphatune.packed.kernels import native

    registers = native.registers()
    return None if registers is None else registers.inputs


def rebuild(qweight: Tensor, alpha: Tensor, offset: Tensor | None, grouping: Grouping, reuse: bool = False) -> Tensor:
    """The dense W^T [in, out], float32; the same bits on every path.

    Args:
        reuse: the result may lie in memory that this thread's next call overwrites.

    Raises:
        UserError: scales that are not float32.
    """
    _check(alpha)
    if _addressable(qweight, alpha) and fast():
        from alphatune.packed.kernels import native

        return native.rebuild(qweight, alpha, offset, grouping, reuse)
    if _on_fast_gpu(qweight, alpha):
        from alphatune.packed.kernels import gpu

        return gpu.rebuild(qweight, alpha, offset, grouping)
    return _rebuild(qweight, alpha, offset, grouping)


def times_plane(values: Tensor, qweight: Tensor, plane: int) -> Tensor:
    """`values` float32 [in, out] times the codes of one plane, exact; may lie where `rebuild` with `reuse` writes."""
    if _addressable(values, qweight) and fast():
        from alphatune.packed.kernels import native

        return native.times_codes(values, qweight, plane)
    return times_codes(values, sign_bits(qweight[:, plane], len(values)))


def scale_gradient(x: Tensor, dy: Tensor, qweight: Tensor, plane: int, grouping: Grouping) -> Tensor | None:
    """[G, R]: the gradient of one plane's scales from x [..., in] and dy [..., out], without that of the weight.

    None where that would not be faster: which of the two it is depends on the CPU, the packages, the number of threads
    and the layer alone, on no measurement, so the same run gives the same bits.
    """
    if not (_addressable(x, dy, qweight) and fast() and x.dtype == dy.dtype == torch.float32 and x.numel()):
        return None
    if grouping.span > 1:
        return None
    from alphatune.packed.kernels import native

    registers = native.registers()
    if registers is None or torch.get_num_threads() > registers.threads or grouping.size < native.SMALLEST_GROUP:
        return None
    return native.scale_gradient(x, dy, qweight, plane, grouping)


def multiply(x: Tensor, qweight: Tensor, alpha: Tensor, offset: Tensor | None, grouping: Grouping) -> Tensor:
    """[..., in] -> [..., out] without gradients and without keeping a dense weight, in the dtype of x."""
    path = fastest(x, qweight, alpha, offset, grouping)
    if path is not None and path != "dense":
        return path(x, qweight, alpha, offset)
    if not torch.are_deterministic_algorithms_enabled() and x.numel() and _on_fast_gpu(x, qweight, alpha):
        from alphatune.packed.kernels import gpu

        if x.dtype in gpu.DTYPES and x.numel() <= gpu.MANY * grouping.columns:
            return gpu.multiply(x, qweight, alpha, offset, grouping)
    return x @ rebuild(qweight, alpha, offset, grouping, reuse=True).to(x.dtype)


def fastest(x: Tensor, qweight: Tensor, alpha: Tensor, offset: Tensor | None, grouping: Grouping) -> Path:
    """The kernel that multiplies x by the bits fastest, None where that is a rebuilt weight.

    "dense" where a dense weight that is kept beats them all, as it always does without kernels. Under torch's
    deterministic algorithms never a kernel: which is the fastest depends on the machine, and their sums differ in the
    last bit.
    """
    _check(alpha)
    if not x.is_cpu or x.shape[-1] != grouping.columns:  # of the wrong width: torch's product says so
        return None
    if not fast():
        return "dense"
    if x.dtype != torch.float32 or torch.are_deterministic_algorithms_enabled() or not x.numel():
        return None
    if not _addressable(x, qweight, alpha):
        return None
    rows = x.numel() // grouping.columns
    return _fastest(rows, qweight.shape[1], offset is not None, grouping, torch.get_num_threads())


def _check(alpha: Tensor) -> None:
    if alpha.dtype is not torch.float32:  # a kernel would read past its end
        raise UserError(f"the scales of a packed layer are {alpha.dtype}: they must be float32; load the model again")


@functools.lru_cache(4096)
def _fastest(rows: int, planes: int, offset: bool, grouping: Grouping, threads: int) -> Path:
    from alphatune.packed.kernels import crossover, native

    limits = crossover.limits_for(planes, grouping, threads)
    if limits.want_dense(rows):
        return "dense"
    if rows <= limits.lookup and grouping.size >= native.SMALLEST_GROUP:
        return native.by_lookup(rows, planes, offset, grouping)
    return native.by_tiles(rows, planes, offset, grouping) if rows <= limits.tiles else None


@functools.cache
def tell_of_dense_weights(kernels: bool) -> None:
    """Warn, once a process, that packed layers hold dense weights: no kernel can multiply the bits, or none as fast."""
    why = (
        "for so many bits, such groups and so many rows at once no product of bits is as fast"
        if kernels
        else "the package that multiplies bits is missing; pip install 'alphatune[fast]'"
    )
    warnings.warn(
        f"packed layers keep their dense weights while they compute on this CPU (4 bytes per weight beside the bits): "
        f"{why}",
        stacklevel=2,
    )


def _addressable(*tensors: Tensor) -> bool:
    """Whether these are numbers in this machine's memory, not stand-ins of a compiler or a tracer."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    for tensor in tensors:  # a generator would take a microsecond, at every product  # noqa: SIM110
        if type(tensor) not in _PLAIN or not tensor.is_cpu:
            return False
    return True


def _on_fast_gpu(*tensors: Tensor) -> bool:
    """Whether these are numbers in the memory of one GPU that Triton makes code for."""
    device = tensors[0].device
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or not fast_on_gpu(device):
        return False
    return all(type(tensor) in _PLAIN and tensor.device == device for tensor in tensors)


def _rebuild(qweight: Tensor, alpha: Tensor, offset: Tensor | None, grouping: Grouping) -> Tensor:
    """W^T by torch's own operations, block by block."""
    weight = torch.zeros(grouping.columns, grouping.rows, dtype=torch.float32, device=qweight.device)
    room: Tensor | None = None
    for words, inputs in blocks(grouping.columns, grouping.rows, qweight.device):
        part = weight[inputs]
        if room is None:  # the first block is the largest
            room = torch.empty((words.stop * WORD, grouping.rows), dtype=torch.int32, device=qweight.device)
        for i in range(qweight.shape[1]):
            part += times_codes(grouping.spread(alpha[:, i], inputs), sign_bits(qweight[words, i], len(part), room))
        if offset is not None:
            part += grouping.spread(offset, inputs)
    return weight
