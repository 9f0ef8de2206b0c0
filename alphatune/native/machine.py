"""Compiling for this CPU, once: object code is kept in the user's cache folder, by the content of what made it."""

from __future__ import annotations

import ctypes
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

from llvmlite import binding, ir

from alphatune.store import cache

_PACKAGE = Path(__file__).parents[1]


def _target() -> binding.TargetMachine:
    """A compiler for this CPU; an engine that is given one owns it."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_default_triple()
    return target.create_target_machine(cpu=name(), features=_features(), opt=3, jit=True)


def _features() -> str:
    return binding.get_host_cpu_features().flatten()


def name() -> str:
    """The CPU, as LLVM calls it."""
    return binding.get_host_cpu_name()


def has(*features: str) -> bool:
    """Whether this CPU has all the named features, as LLVM spells them."""
    found = binding.get_host_cpu_features()
    return all(found.get(name, False) for name in features)


def folder() -> Path:
    """Where compiled code and measured crossovers lie: below $ALPHATUNE_CACHE, or ~/.cache/alphatune."""
    return cache.folder("kernels")


@functools.cache
def identity() -> str:
    """A hash of this CPU, the compiler and the code of the kernels."""
    digest = hashlib.sha256(f"{name()} {_features()} {binding.llvm_version_info}".encode())
    for path in sorted([*_PACKAGE.glob("native/*.py"), *_PACKAGE.glob("*/kernels/*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


_LOADED: dict[str, Callable[..., None]] = {}


def compiled(kernel: str, build: Callable[[], ir.Module], arguments: int) -> Callable[..., None]:
    """The function of the module that `build` makes, from the cache where it is there.

    Args:
        kernel: its name and variant; letters, digits and dashes.
        arguments: how many; all are 64-bit integers or addresses.
    """
    if kernel in _LOADED:
        return _LOADED[kernel]
    path = folder() / f"{kernel}-{identity()[:24]}.o"
    code = _read(path)
    if code is None:
        target = _target()
        code = target.emit_object(_optimised(str(build()), target))
        cache.keep(path, hashlib.sha256(code).digest() + code)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), _target())
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * arguments)
    made = kind(engine.get_function_address(kernel.partition("-")[0]))
    made.engine = engine  # type: ignore[attr-defined]  # which owns the code
    _LOADED[kernel] = made
    return made


def _optimised(text: str, target: binding.TargetMachine) -> binding.ModuleRef:
    module = binding.parse_assembly(text)
    module.triple = target.triple
    module.data_layout = str(target.target_data)
    module.verify()
    tuning = binding.create_pipeline_tuning_options(speed_level=2)
    tuning.loop_unrolling = tuning.loop_vectorization = False  # what is to be wide is written wide
    passes = binding.create_pass_builder(target, tuning)
    passes.getModulePassManager().run(module, passes)
    return module


def _read(path: Path) -> bytes | None:
    """The code in `path`, or None where there is none or it is damaged."""
    try:
        stored = path.read_bytes()
    except OSError:
        return None
    return stored[32:] if hashlib.sha256(stored[32:]).digest() == stored[:32] else None
