"""Folders of weights: every change of a file is seen before it is used, and named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

import alphatune
from alphatune.errors import UserError
from alphatune.hf import checkpoints, sealed
from alphatune.store import seal


def _model(seed: int) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=64, n_positions=16))
    return alphatune.quantize_model(model, alphatune.BCQConfig(2), progress=False)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two packed models of one shape, saved by `save_pretrained` alone, and an adapter."""
    root = tmp_path_factory.mktemp("saved")
    for name, seed in (("one", 0), ("two", 1)):
        _model(seed).save_pretrained(root / name)
    wrapped = get_peft_model(_model(0), alphatune.AlphaTuningConfig(task_type="CAUSAL_LM"))
    wrapped.save_pretrained(str(root / "adapter"))
    return root


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved / "one", tmp_path / "one"))


def test_what_save_pretrained_writes_carries_checksums_that_hold(folder: Path) -> None:
    assert sealed.verify(folder)
    assert checkpoints.load(folder) is not None


def test_every_flipped_bit_of_the_tensors_is_seen(folder: Path) -> None:
    """One bit in each of 40 places, spread over the file behind its header."""
    file = folder / "model.safetensors"
    content = file.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    for i in range(40):
        at = start + (len(content) - start) * i // 40
        file.write_bytes(content[:at] + bytes([content[at] ^ (1 << i % 8)]) + content[at + 1 :])
        with pytest.raises(UserError, match=r"model\.safetensors: damaged: .* is not what was saved"):
            sealed.verify(folder)


def test_a_tensor_of_another_model_of_the_same_shape_is_seen(folder: Path, saved: Path) -> None:
    theirs = load_file(saved / "two" / "model.safetensors")
    ours = load_file(folder / "model.safetensors")
    with_one = ours | {"transformer.h.0.mlp.c_fc.alpha": theirs["transformer.h.0.mlp.c_fc.alpha"]}
    save_file(with_one, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"transformer\.h\.0\.mlp\.c_fc\.alpha is not what was saved"):
        sealed.verify(folder)


CHANGES = ["removed", "emptied", "cut", "flipped", "swapped"]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "generation_config.json"])
def test_in_a_folder_that_a_command_wrote_every_changed_file_is_named(
    name: str, change: str, folder: Path, saved: Path
) -> None:
    (folder / "README.md").write_text("a card")
    sealed.write(folder)
    assert sealed.verify(folder)
    (folder / "README.md").write_text("an edited card")
    assert sealed.verify(folder)  # people write into it
    file, content = folder / name, (folder / name).read_bytes()
    if change == "removed":
        file.unlink()
    elif change == "swapped":
        other = (saved / "two" / name).read_bytes()
        file.write_bytes(other if other != content else content[::-1])
    else:
        changed = {"emptied": b"", "cut": content[:-1], "flipped": bytes([content[0] ^ 4]) + content[1:]}[change]
        file.write_bytes(changed)
    with pytest.raises(UserError, match=rf"damaged: {name} .*: download it again"):
        sealed.verify(folder)


def test_an_adapter_left_by_a_run_is_checked_against_its_manifest(saved: Path, tmp_path: Path) -> None:
    made = tmp_path / "0123456789abcdef"
    shutil.copytree(saved / "adapter", made / "adapter")
    seal(made, {"x": 1})
    assert sealed.verify(made / "adapter")
    settings = json.loads((made / "adapter" / "adapter_config.json").read_text())
    (made / "adapter" / "adapter_config.json").write_text(json.dumps(settings | {"trainable": "gain"}))
    with pytest.raises(UserError, match=r"damaged: adapter/adapter_config\.json .*run it again"):
        sealed.verify(made / "adapter")


@pytest.mark.parametrize("which", ["gain", "all"])
def test_the_kind_of_scales_of_an_adapter_cannot_be_edited(which: str, saved: Path, tmp_path: Path) -> None:
    """The first alphas and the gain have one shape: nothing else would tell them apart."""
    adapter = Path(shutil.copytree(saved / "adapter", tmp_path / "adapter"))
    settings = json.loads((adapter / "adapter_config.json").read_text())
    assert settings["trainable"] == "first" and settings["seal"]
    (adapter / "adapter_config.json").write_text(json.dumps(settings | {"trainable": which}))
    with pytest.raises(UserError, match="trainable or base_fingerprint is not what was saved"):
        PeftModel.from_pretrained(checkpoints.load(saved / "one"), adapter)
    del settings["seal"]  # as adapters were saved before there was one
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    PeftModel.from_pretrained(checkpoints.load(saved / "one"), adapter)


@pytest.mark.parametrize("dtype", [torch.int32, torch.float16])
def test_an_adapter_of_another_type_is_refused(dtype: torch.dtype, saved: Path, tmp_path: Path) -> None:
    adapter = Path(shutil.copytree(saved / "adapter", tmp_path / "adapter"))
    file = adapter / checkpoints.ADAPTER_WEIGHTS
    save_file({name: tensor.to(dtype) for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    with pytest.raises(UserError, match="is not float32"):
        checkpoints.load_adapters(checkpoints.load(saved / "one"), [adapter])


@pytest.mark.parametrize("names", [("0", "h"), ("copy", "c_attn")])
def test_folders_may_be_called_like_modules(names: tuple[str, str], saved: Path, tmp_path: Path) -> None:
    """peft leaves out, when it saves one adapter, what has the name of another among the parts of its own."""
    folders = [Path(shutil.copytree(saved / "adapter", tmp_path / name)) for name in names]
    model, found = checkpoints.load_adapters(checkpoints.load(saved / "one"), folders)
    assert found == [f"adapter-{name}" for name in names]
    model.save_pretrained(tmp_path / "again")
    for name in found:
        again = load_file(tmp_path / "again" / name / checkpoints.ADAPTER_WEIGHTS)
        assert again.keys() == load_file(folders[0] / checkpoints.ADAPTER_WEIGHTS).keys()


def test_an_index_that_names_a_file_elsewhere_is_refused(folder: Path) -> None:
    index = {"weight_map": {"a": "../../secret.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="names ../../secret.safetensors, which is no file of this folder"):
        checkpoints.weight_files(folder)
