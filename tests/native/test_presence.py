"""Whether machine code may be made: the environment and the package decide."""

import importlib.util

import pytest

from alphatune.native.presence import fast


def test_kernels_are_forbidden_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALPHATUNE_KERNELS", "0")
    assert not fast.__wrapped__()
    monkeypatch.delenv("ALPHATUNE_KERNELS")
    assert fast.__wrapped__() == (importlib.util.find_spec("llvmlite") is not None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not fast.__wrapped__()
