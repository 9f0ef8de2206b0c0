"""The weights in the package: small, checked when loaded, and made without half precision arithmetic."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from alphatune.compose.compose import config_of
from alphatune.config import Tiny
from alphatune.errors import UserError
from alphatune.learn import embedded, tiny
from alphatune.learn.models import load, skeleton


def test_the_files_are_those_that_the_hashes_name_and_small() -> None:
    assert embedded.verified() == embedded.FOLDER
    files = {p.name for p in embedded.FOLDER.iterdir()} - {embedded.HASHES}
    assert files == set(embedded.hashes())
    assert sum(p.stat().st_size for p in embedded.FOLDER.iterdir()) < 3_000_000


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "no hashes"])
def test_damaged_weights_are_refused(damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(embedded.FOLDER, folder)
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-5] ^= 1
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:-1])
    elif damage == "gone":
        path.unlink()
    else:
        (folder / embedded.HASHES).write_text("{")
    with pytest.raises(UserError, match="the embedded weights .*: install alphatune again"):
        embedded.verified(folder)


def test_they_are_the_default_recipe_in_shape_and_know_their_world(tmp_path: Path) -> None:
    config = config_of([f"runtime.artifacts={tmp_path}"])
    model, tokenizer = load(config, None)  # type: ignore[arg-type]  # nothing is made, so no store is asked
    shapes = {n: p.shape for n, p in model.named_parameters()}
    assert shapes == {n: p.shape for n, p in skeleton(config.model).named_parameters()}
    assert all(p.dtype == torch.float32 for p in model.parameters())
    from alphatune.data import toy

    document = next(iter(toy.pretraining_documents(1)))
    ids = torch.tensor([[0, *tokenizer(document)["input_ids"], 0]])
    with torch.no_grad():
        loss = model(ids, labels=ids).loss
    assert float(loss) < 2.0  # nats a token; log 512 = 6.2 is that of a model that knows nothing


class _NoHalves(TorchDispatchMode):
    """Fails where an operation gives bfloat16 or float16."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            assert not isinstance(value, torch.Tensor) or value.dtype not in (torch.bfloat16, torch.float16), func
        return result


def test_pre_training_computes_in_float32_alone(tmp_path: Path) -> None:
    recipe = Tiny(layers=1, width=16, heads=2, vocabulary=300, positions=400, steps=3, batch_size=2)
    with _NoHalves():
        tiny.pretrain(recipe, tmp_path, progress=False)


def test_the_direction_of_muon_has_the_singular_vectors_of_the_gradient() -> None:
    torch.manual_seed(0)
    for shape in ((8, 12), (12, 8)):
        matrix = torch.randn(shape)
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        found = u.T @ tiny._Muon([torch.zeros(1)], {})._orthogonal(matrix) @ v.T
        assert torch.allclose(found, torch.diag(found.diagonal()), atol=1e-4)
        assert bool(((found.diagonal() > 0.6) & (found.diagonal() < 1.3)).all())
