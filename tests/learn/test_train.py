"""Training: the loss where labels are, Eq. 4 in the optimiser's hands, resume to the same bits, golden losses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import transformers
from conftest import ROOT
from safetensors.torch import load_file, save_file
from torch.nn import functional

from alphatune.compose.compose import config_of
from alphatune.data.load import load
from alphatune.errors import UserError
from alphatune.learn import batches, embedded, loss, resume
from alphatune.learn.batches import IGNORED, BucketedBatches, Counts, Item, collate
from alphatune.learn.models import load as load_model
from alphatune.run.pipeline import Run
from alphatune.store import Store

HERE = ROOT / "tests"


def test_the_loss_equals_the_full_computation(quick: list[str]) -> None:
    config = config_of(quick)
    run = Run(config, load(config.task, config.data))
    model, tokenizer = load_model(config, run.store)
    items = batches.training_items(run.train_examples[:5], tokenizer, config.task, Counts())
    batch = collate(items, 0)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    for smoothing in (0.0, 0.1):
        full = functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(),
            ignore_index=IGNORED, label_smoothing=smoothing,
        )  # fmt: skip
        assert torch.allclose(loss.language_loss(model, batch, smoothing), full, atol=1e-6)


def test_a_backbone_without_a_block_s_weight_is_refused(tmp_path: Path) -> None:
    """transformers would draw it at random and go on."""
    for source in embedded.FOLDER.iterdir():
        shutil.copy(source, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    lost = next(name for name in weights if name.endswith("h.1.mlp.c_fc.weight"))
    save_file(
        {name: t for name, t in weights.items() if name != lost}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    config = config_of([f"model.name_or_path={tmp_path}"])
    with pytest.raises(
        UserError, match=r"the weights lack transformer\.h\.1\.mlp\.c_fc\.weight \(1 in all\) of GPT2LM"
    ):
        load_model(config, Store(tmp_path / "store"))
    masks = {"transformer.h.0.attn.masked_bias": torch.tensor(-1e4)}  # as gpt2-medium's file once had them
    save_file(weights | masks, tmp_path / "model.safetensors", {"format": "pt"})
    load_model(config, Store(tmp_path / "store"))
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"n_layer": 1}))
    with pytest.raises(UserError, match="config.json belongs to another model"):
        load_model(config, Store(tmp_path / "store"))


def test_layout_separator_and_loss_mask(quick: list[str]) -> None:
    config = config_of([*quick, "task.max_context=300", "task.max_target=90"])
    run = Run(config, load(config.task, config.data))
    _, tokenizer = load_model(config, run.store)
    example = run.train_examples[0]
    item = batches.training_items([example], tokenizer, config.task, Counts())[0]
    context = tokenizer(example.text)["input_ids"]
    target = tokenizer(" " + example.targets[0])["input_ids"]
    assert item.input_ids == [*context, 0, *target, 0]
    assert item.labels == [IGNORED] * (len(context) + 1) + [*target, 0]


def test_long_contexts_lose_their_left_end_and_are_counted(quick: list[str]) -> None:
    config = config_of([*quick, "task.max_context=8", "task.max_target=4"])
    run = Run(config, load(config.task, config.data))
    _, tokenizer = load_model(config, run.store)
    counts = Counts()
    items = batches.training_items(run.train_examples[:3], tokenizer, config.task, counts)
    assert counts.truncated_contexts == 3 and counts.truncated_targets == len(items)
    whole = tokenizer(run.train_examples[0].text)["input_ids"]
    assert items[0].input_ids[:9] == [*whole[-8:], 0]
    assert len(items[0].input_ids) == 8 + 1 + 4 + 1


def test_batches_cover_every_epoch_and_group_like_lengths() -> None:
    lengths = [(7 * i) % 40 + 1 for i in range(103)]
    sampler = BucketedBatches(lengths, 8, 26, seed=0)
    found = list(sampler)
    assert len(found) == 26 and found == list(sampler)
    for epoch in (found[:13], found[13:]):
        assert sorted(i for b in epoch for i in b) == list(range(103))
    spread = [max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in found]
    assert sum(spread) / len(spread) < 6
    assert found != list(BucketedBatches(lengths, 8, 26, seed=1))


def test_collate_pads_on_the_right() -> None:
    batch = collate([Item([5, 6, 7], [IGNORED, 6, 7]), Item([8], [8])], pad_token=9)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 6, 7], [8, IGNORED, IGNORED]]


def test_only_what_the_method_names_changes(quick: list[str]) -> None:
    config = config_of([*quick, "hparams.learning_rate=0.05"])
    run = Run(config, load(config.task, config.data))
    trained = load_file(run.adapted().path / "adapter" / "adapter_model.safetensors")
    assert {name.rsplit(".", 1)[-1] for name in trained} == {"alphatuning_scale"}
    assert sum(t.numel() for t in trained.values()) == 2 * 9 * 32  # alpha_1: 9 h per layer, h = 32


def test_every_step_of_a_curve_is_there_once(quick: list[str]) -> None:
    config = config_of([*quick, "hparams.epochs=3", "trainer.evals=4", "seed=9"])
    curves = json.loads((Run(config, load(config.task, config.data)).adapted().path / "report.json").read_text())
    for points in curves["curves"].values():
        steps = [step for step, _ in points]
        assert steps == sorted(set(steps)) and len(steps) >= 4


def _stop_after(saves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training is killed right after its checkpoint number `saves` is whole."""
    real, count = resume.Sealing.on_save, []

    def dies(self: resume.Sealing, args: object, state: object, control: object, **kwargs: object) -> None:
        real(self, args, state, control, **kwargs)
        count.append(1)
        if len(count) == saves:
            raise KeyboardInterrupt

    monkeypatch.setattr(resume.Sealing, "on_save", dies)


_RARE = [pytest.param(damage, marks=pytest.mark.slow) for damage in ("missing", "foreign")]


@pytest.mark.parametrize("damage", ["none", "half", "flipped", *_RARE])
def test_a_resumed_training_equals_an_unbroken_one(
    damage: str, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    common = [*quick, "method=lora", "hparams.epochs=4", "trainer.evals=4", "trainer.saves=3", "hparams.dropout=0.1"]
    whole = config_of([*common, f"runtime.artifacts={tmp_path / 'whole'}"])
    broken = config_of([*common, f"runtime.artifacts={tmp_path / 'broken'}"])
    expected = Run(whole, load(whole.task, whole.data)).adapted().path
    run = Run(broken, load(broken.task, broken.data))
    _stop_after(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        run.adapted()
    monkeypatch.undo()
    (folder,) = run.store.scratch("adapt", run.plan.adapted or {}).glob("checkpoint-*")
    if damage == "half":  # killed while the next one was written: its weights are there, the rest is not
        later = folder.with_name(f"checkpoint-{int(folder.name.rsplit('-')[1]) + 9}")
        later.mkdir()
        shutil.copy(folder / "trained.safetensors", later)
    elif damage == "missing":
        (folder / "optimizer.pt").unlink()
    elif damage == "flipped":
        content = bytearray((folder / "optimizer.pt").read_bytes())
        content[len(content) // 2] ^= 1
        (folder / "optimizer.pt").write_bytes(content)
    elif damage == "foreign":
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | {"spec": {"training": "another.partial"}}))
    with caplog.at_level("INFO", logger="alphatune"):
        found = Run(broken, load(broken.task, broken.data)).adapted().path
    assert ("continuing from step" in caplog.text) == (damage in ("none", "half"))
    assert ("is not used" in caplog.text) == (damage != "none")
    for name in ("trained.safetensors", "report.json"):
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name
    assert not list((tmp_path / "broken").glob("adapt/*.partial"))


GOLDEN_METHODS = ["full_ft", "lora", "alphatuning", "peqa", "bcq_lora"]


@pytest.mark.parametrize("method", GOLDEN_METHODS)
def test_golden_losses(method: str, quick: list[str], tmp_path: Path) -> None:
    """20 steps on a random two-layer GPT-2, against the losses stored by `python tests/goldens/make.py`."""
    sys.path.insert(0, str(HERE / "goldens"))
    from make import losses

    stored = json.loads((HERE / "goldens" / "losses.json").read_text())[method]
    assert losses(method, tmp_path) == pytest.approx(stored, rel=2e-4)


def _command(store: Path, method: str) -> list[str]:
    from conftest import QUICK

    return [sys.executable, "-c", "import sys; from alphatune.run.execute import main; sys.exit(main())", *QUICK,
            f"method={method}", "hparams.epochs=6", "trainer.saves=5", f"runtime.artifacts={store}",
            f"runtime.records={store / 'records'}"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "file"), [("lora", "trained.safetensors"), ("alphatuning", "adapter/adapter_model.safetensors")]
)
def test_a_killed_training_ends_with_the_weights_of_an_unbroken_one(method: str, file: str, tmp_path: Path) -> None:
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    process = subprocess.Popen(_command(broken, method), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 180
    while not list(broken.glob("adapt/*.partial/checkpoint-*/manifest.json")) and time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not list(broken.glob("adapt/*/manifest.json")), "the training was not interrupted"
    log = subprocess.run(_command(broken, method), check=True, capture_output=True, text=True).stderr
    assert "continuing from step" in log
    subprocess.run(_command(whole, method), check=True, capture_output=True)
    made = [next(store.glob("adapt/*/manifest.json")).parent for store in (broken, whole)]
    assert (made[0] / file).read_bytes() == (made[1] / file).read_bytes()
    reports = [json.loads((folder / "report.json").read_text())["curves"] for folder in made]
    assert reports[0] == reports[1]


def test_bfloat16_training_computes_in_bfloat16(quick: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    dtypes = []
    real = loss.token_losses

    def told(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        logits, labels = real(model, batch)
        dtypes.append((model.training, logits.dtype))
        return logits, labels

    monkeypatch.setattr(loss, "token_losses", told)
    config = config_of([*quick, "trainer.precision=bfloat16", "trainer.max_steps=2", "trainer.evals=1"])
    run = Run(config, load(config.task, config.data))
    run.trained(*run.started(), Counts())
    assert {dtype for training, dtype in dtypes if training} == {torch.bfloat16}


def test_more_gpus_than_one_are_not_used_behind_the_loss(quick: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    made = transformers.TrainingArguments.__post_init__

    def with_two(self: transformers.TrainingArguments) -> None:
        made(self)
        self._n_gpu = 2  # what torch.cuda.device_count() says on such a machine

    monkeypatch.setattr(transformers.TrainingArguments, "__post_init__", with_two)
    config = config_of([*quick, "trainer.max_steps=1", "trainer.evals=1"])
    run = Run(config, load(config.task, config.data))
    curves = run.trained(*run.started(), Counts())
    assert len(curves.train) == 1


SMALL = dict(vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
             num_key_value_heads=1, max_position_embeddings=32)  # fmt: skip


@pytest.mark.parametrize(
    "config",
    [
        transformers.GraniteConfig(**SMALL, logits_scaling=8.0),
        transformers.CohereConfig(**SMALL, logit_scale=0.0625, head_dim=8),
        transformers.Gemma2Config(**SMALL, final_logit_softcapping=0.1, head_dim=8),
    ],
    ids=lambda config: config.model_type,
)
def test_logits_are_those_of_the_models_own_forward(config: transformers.PretrainedConfig) -> None:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    ids = torch.arange(1, 9)[None]
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    with torch.no_grad():
        assert torch.allclose(loss.token_losses(model, batch)[0], model(input_ids=ids).logits[0, :-1], atol=1e-6)
    loss.check_logits(model, ids[0].tolist())


def test_a_model_that_does_more_to_its_logits_is_refused() -> None:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(**SMALL)).eval()
    loss.check_logits(model, [1, 2, 3])
    own = model.forward

    def scaled(**inputs: torch.Tensor) -> object:
        out = own(**inputs)
        out.logits = out.logits * 2
        return out

    model.forward = scaled
    with pytest.raises(UserError, match="LlamaForCausalLM: changes logits after its LM head"):
        loss.check_logits(model, [1, 2, 3])
