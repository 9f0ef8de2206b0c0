"""alphatune: compression-aware parameter-efficient adaptation (AlphaTuning, EMNLP Findings 2022, and its relatives).

`import alphatune` is all that transformers and peft need to load packed models and their adapters, whichever of the
three is imported first. It imports neither of them nor torch.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["AlphaTuningConfig", "BCQConfig", "UniformConfig", "quantize_model"]

if TYPE_CHECKING:
    from alphatune.hf.quantizer import quantize_model
    from alphatune.hf.scales import AlphaTuningConfig
    from alphatune.settings import BCQConfig, UniformConfig

_HOMES = {
    "quantize_model": "alphatune.hub",
    "BCQConfig": "alphatune.settings",
    "UniformConfig": "alphatune.settings",
    "AlphaTuningConfig": "alphatune.tuner",
}
# Neither library looks for plug-ins itself, so ours register as soon as the module that they extend is there.
_PLUGINS = {"transformers.quantizers.auto": "alphatune.hub", "peft": "alphatune.tuner"}


def __getattr__(name: str) -> Any:
    # on first use: `python -m alphatune.run --help` must not wait for torch
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(_HOMES[name]), name)


class _AfterImport(MetaPathFinder):
    """Lets the other finders find a module of `_PLUGINS`, and its plug-in follow once it has been executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _PLUGINS:
            return None
        others = (f for f in sys.meta_path if f is not self and hasattr(f, "find_spec"))
        spec = next((s for f in others if (s := f.find_spec(fullname, path, target)) is not None), None)
        if spec is not None and spec.loader is not None:
            _follow(spec.loader, fullname)
        return spec


def _follow(loader: Loader, host: str) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        if module.__name__ == host:  # a zip file has one loader for all that it holds
            _register(_PLUGINS[host])

    loader.exec_module = exec_module  # type: ignore[method-assign]


def _register(plugin: str) -> None:
    try:
        import_module(plugin)
    except Exception as error:  # the other library must stay usable
        warnings.warn(f"{plugin} cannot be used: {type(error).__name__}: {error}", stacklevel=2)


if not any(type(finder).__name__ == _AfterImport.__name__ for finder in sys.meta_path):  # there is one after a reload
    sys.meta_path.insert(0, _AfterImport())
for _host, _plugin in _PLUGINS.items():
    if _host in sys.modules:
        _register(_plugin)
