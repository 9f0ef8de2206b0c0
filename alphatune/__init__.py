"""alphatune: compression-aware parameter-efficient adaptation (AlphaTuning, EMNLP Findings 2022, and its relatives).

`alphatune.register()` tells transformers and peft of packed models and of their adapters; call it before loading one
with `from_pretrained`. Using any other public name does so too. Importing this package imports neither of the two, nor
torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["AlphaTuningConfig", "BCQConfig", "UniformConfig", "eight_bit_head", "quantize_model", "register"]

if TYPE_CHECKING:
    from alphatune.hf.quantizer import quantize_model
    from alphatune.hf.scales import AlphaTuningConfig
    from alphatune.packed.head import eight_bit_head
    from alphatune.settings import BCQConfig, UniformConfig

_HOMES = {
    "quantize_model": "alphatune.hf.quantizer",
    "eight_bit_head": "alphatune.packed.head",
    "AlphaTuningConfig": "alphatune.hf.scales",
    "BCQConfig": "alphatune.settings",
    "UniformConfig": "alphatune.settings",
}


def register() -> None:
    """Tell transformers how packed checkpoints are loaded, and peft how their adapters are; once is enough."""
    for module in ("alphatune.hf.quantizer", "alphatune.hf.scales"):
        import_module(module)  # each registers what it defines


def __getattr__(name: str) -> Any:
    # on first use: `alphatune --help` must not wait for torch
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    register()
    return getattr(import_module(_HOMES[name]), name)
