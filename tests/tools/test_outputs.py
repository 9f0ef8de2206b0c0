"""Folders of the command line: whole or not at all, also when a replacement is killed half-way."""

from __future__ import annotations

from pathlib import Path

import pytest

from alphatune.tools import outputs


def _checkpoint(folder: Path, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_text(text)


def test_what_was_replaced_by_a_killed_command_is_there_again(tmp_path: Path) -> None:
    _checkpoint(tmp_path / ".out.old", "old")  # killed between moving the old folder away and the new one in
    with pytest.raises(RuntimeError), outputs.new_folder(tmp_path / "out", overwrite=True):
        raise RuntimeError
    assert (tmp_path / "out" / "model.safetensors").read_text() == "old"
    with outputs.new_folder(tmp_path / "out", overwrite=True) as folder:
        _checkpoint(folder, "new")
    assert (tmp_path / "out" / "model.safetensors").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["checksums.json", "model.safetensors"]
