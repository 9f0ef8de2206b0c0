"""A packaged run loads with transformers and peft alone, and computes what the run computed."""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForPreTraining,
    PreTrainedTokenizerFast,
)

from alphatune.__main__ import main
from alphatune.compose.compose import config_of
from alphatune.data.load import load
from alphatune.packed.linear import packed_layers
from alphatune.run import record
from alphatune.run.execute import execute
from alphatune.run.pipeline import Run

IDS = torch.tensor([[5, 9, 42, 7, 60]])


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model.eval()(input_ids=IDS).logits


def expected(overrides: list[str]) -> torch.Tensor:
    """The logits of the model that the run evaluated."""
    config = config_of(overrides)
    return logits(Run(config, load(config.task, config.data)).final[0])


def package(record_: Path, out: Path, shared_store: Path, *options: str) -> int:
    return main(["package", str(record_), str(out), f"--artifacts={shared_store}", *options])


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")  # no backbone lies here by accident


@pytest.mark.parametrize("method", ["alphatuning", "peqa", "ptq", "ptq_full_ft", "ptq_merged_lora", "ptq_w_plus_lora",
                                    "full_ft", "lora"])  # fmt: skip
def test_the_model_of_every_method(method: str, quick: list[str], shared_store: Path, tmp_path: Path) -> None:
    overrides = [*quick, f"method={method}", "quant.q=2"]
    made = execute(config_of(overrides))
    assert package(made, tmp_path / "up", shared_store, "--repository=someone/toy") == 0
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "up", output_loading_info=True)
    assert not info["missing_keys"]
    assert torch.allclose(logits(model), expected(overrides), atol=1e-6)
    assert bool(packed_layers(model)) == (method not in ("full_ft", "lora", "ptq_w_plus_lora"))
    assert AutoTokenizer.from_pretrained(tmp_path / "up")("a").input_ids
    card = ModelCard.load(tmp_path / "up" / "README.md")
    assert card.data.to_dict()["library_name"] == "transformers" and "someone/toy" in card.text
    assert {p.suffix for p in (tmp_path / "up").iterdir()} <= {".json", ".safetensors", ".md", ".txt", ".jinja"}
    assert not any(str(tmp_path) in p.read_text() for p in (tmp_path / "up").glob("*.json"))


@pytest.mark.parametrize("method", ["alphatuning", "peqa", "bcq_lora"])
def test_adapters_on_the_packed_base_that_was_packaged(
    method: str, quick: list[str], shared_store: Path, tmp_path: Path
) -> None:
    overrides = [*quick, f"method={method}", "quant.q=2"]
    made = execute(config_of(overrides))
    assert package(made, tmp_path / "base", shared_store, "--as=base") == 0
    assert package(made, tmp_path / "task", shared_store, "--as=adapter", f"--base={tmp_path / 'base'}") == 0
    assert {p.name for p in (tmp_path / "task").iterdir()} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "checksums.json",
    }  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "task")  # finds its base
    assert torch.allclose(logits(model), expected(overrides), atol=1e-6)
    base = (tmp_path / "base" / "README.md").read_text()
    assert "not adapted" in base and "## Scores" not in base and "licence of the data" not in base
    assert ModelCard((tmp_path / "task" / "README.md").read_text()).data.to_dict()["library_name"] == "peft"


@pytest.fixture
def rte(tmp_path: Path, shared_store: Path) -> list[str]:
    """A short run of a random BERT on twelve made-up pairs."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "sat", "a", "dog", "ran", *map(str, range(12))]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    bert = tmp_path / "bert"
    PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(bert)
    torch.manual_seed(0)
    BertForPreTraining(BertConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, pad_token_id=0,
    )).save_pretrained(bert)  # fmt: skip
    data = tmp_path / "data" / "glue" / "RTE"
    data.mkdir(parents=True)
    rows = "".join(f"{i}\tthe cat sat {i}\ta dog ran\t{('entailment', 'not_entailment')[i % 2]}\n" for i in range(12))
    for name in ("train", "dev"):
        (data / f"{name}.tsv").write_text("index\tsentence1\tsentence2\tlabel\n" + rows)
    return ["task=glue/rte", f"model.name_or_path={bert}", f"data.dir={tmp_path / 'data'}", "hparams.batch_size=4",
            "data.allow_count_mismatch=true", "hparams.epochs=1", "trainer.evals=1", "hparams.learning_rate=1e-2",
            "runtime.progress=false", "runtime.device=cpu", "quant.q=2",
            f"runtime.artifacts={shared_store}", f"runtime.records={tmp_path / 'records'}"]  # fmt: skip


@pytest.mark.parametrize("method", ["alphatuning", "lora", "bcq_lora"])
def test_a_classifier_keeps_its_trained_head(
    method: str, rte: list[str], shared_store: Path, tmp_path: Path, capsys: Any
) -> None:
    overrides = [*rte, f"method={method}"]
    made = execute(config_of(overrides))
    dense = f"--model={tmp_path / 'bert'}"
    wanted = expected(overrides)
    assert package(made, tmp_path / "no", shared_store) == 2  # the record does not say where the folder is
    assert "--model FOLDER" in capsys.readouterr().err or method == "bcq_lora"
    if method != "bcq_lora":
        assert package(made, tmp_path / "whole", shared_store, dense) == 0
        whole = AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole")
        assert torch.allclose(logits(whole), wanted, atol=1e-6)
    base = tmp_path / "bert"
    if method != "lora":
        base = tmp_path / "base"
        assert package(made, base, shared_store, "--as=base", dense) == 0
    assert package(made, tmp_path / "task", shared_store, "--as=adapter", f"--base={base}", dense) == 0
    tuned = AutoModelForSequenceClassification.from_pretrained(tmp_path / "task")
    assert torch.allclose(logits(tuned), wanted, atol=1e-6)


def test_mistakes(quick: list[str], shared_store: Path, tmp_path: Path, capsys: Any) -> None:
    overrides = [*quick, "quant.q=2"]
    scales = execute(config_of([*overrides, "method=alphatuning"]))
    plain = execute(config_of([*overrides, "method=full_ft"]))
    both = execute(config_of([*overrides, "method=bcq_lora"]))

    def refused(match: str, record_: Path, *options: str, store: Path = shared_store) -> None:
        capsys.readouterr()
        assert package(record_, tmp_path / "out", store, *options) == 2
        told = capsys.readouterr().err
        assert told.startswith("error: ") and match in told and told.count("\n") == 1, told
        assert not (tmp_path / "out").exists()

    refused("needs --base", scales, "--as=adapter")
    refused("--base: belongs to --as adapter", scales, "--base=x")
    refused("method=full_ft leaves none", plain, "--as=adapter")
    refused("method=full_ft adapts no quantised model", plain, "--as=base")
    refused("cannot be merged", both)
    refused("not a readable record", tmp_path / "none.json")
    assert package(scales, tmp_path / "out", shared_store, f"--model={tmp_path}") == 2
    assert "--model FOLDER" not in capsys.readouterr().err  # it was given
    refused("gone or elsewhere", scales, store=tmp_path / "other")
    assert not (tmp_path / "other" / "adapt").exists()  # nothing was trained on the way

    other = copy.deepcopy(record.read(scales))
    other.pop(record.SEAL)  # or its checksum would tell
    other["config"]["hparams"]["learning_rate"] = 0.5
    (tmp_path / "edited.json").write_text(json.dumps(other))
    refused("the record was edited", tmp_path / "edited.json")
    other["config"]["surprise"] = 1
    (tmp_path / "edited.json").write_text(json.dumps(other))
    refused("surprise", tmp_path / "edited.json")

    three = execute(config_of([*quick, "method=alphatuning", "quant.q=3"]))
    assert package(three, tmp_path / "base3", shared_store, "--as=base") == 0
    refused("not the base of this adapter", scales, "--as=adapter", f"--base={tmp_path / 'base3'}")
    refused("not the base of this adapter", both, "--as=adapter", f"--base={tmp_path / 'base3'}")

    low = execute(config_of([*overrides, "method=lora"]))
    assert package(low, tmp_path / "dense", shared_store) == 0
    for record_ in (scales, both):
        refused("holds a dense model, but", record_, "--as=adapter", f"--base={tmp_path / 'dense'}")
    refused("holds a packed model, but", low, "--as=adapter", f"--base={tmp_path / 'base3'}")
    assert package(low, tmp_path / "low", shared_store, "--as=adapter", f"--base={tmp_path / 'dense'}") == 0
    refused("holds an adapter, but", both, "--as=adapter", f"--base={tmp_path / 'low'}")
    refused("there is no folder ./none", scales, "--as=adapter", "--base=./none")
    refused("neither a folder nor a hub id", scales, "--as=adapter", "--base=some one/x")


@pytest.mark.parametrize("path, value", [
    ("config", None), ("config.method", "a"), ("config.method.train", None), ("model.identity", None), ("run_id", None),
    ("model.weights_sha256", []), ("data.files", None), ("config.model", 3), ("scores", []), ("config.quant", "x"),
    ("environment.packages", None),
])  # fmt: skip
def test_damaged_records_are_told_in_one_line(
    path: str, value: Any, quick: list[str], shared_store: Path, tmp_path: Path, capsys: Any
) -> None:
    made = record.read(execute(config_of([*quick, "method=ptq", "quant.q=2"])))
    *parents, name = path.split(".")
    part = made
    for parent in parents:
        part = part[parent]
    part[name] = value
    made.pop(record.SEAL)
    (tmp_path / "damaged.json").write_text(json.dumps(made))
    capsys.readouterr()
    assert package(tmp_path / "damaged.json", tmp_path / "out", shared_store) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and told.count("\n") == 1, told


@pytest.mark.parametrize("method, pattern", [
    ("alphatuning", "adapt/*/adapter/adapter_model.safetensors"), ("alphatuning", "quantize/*/packed.safetensors"),
    ("ptq", "quantize/*/packed.safetensors"), ("alphatuning", "backbone/*/model.safetensors"),
])  # fmt: skip
def test_what_is_damaged_or_missing_is_neither_removed_nor_made_again(
    method: str, pattern: str, quick: list[str], shared_store: Path, tmp_path: Path, capsys: Any
) -> None:
    execute(config_of([*quick, "method=ptq", "quant.q=2"]))  # makes the backbone, if no other test has
    store = tmp_path / "store"
    shutil.copytree(shared_store / "backbone", store / "backbone")
    made = execute(config_of([*quick, f"method={method}", "quant.q=2", f"runtime.artifacts={store}",
                              f"runtime.records={tmp_path / 'own'}"]))  # fmt: skip
    files = {file: file.read_bytes()[:-20] for file in store.glob(pattern)}
    for file, content in files.items():
        file.write_bytes(content)
    capsys.readouterr()
    assert package(made, tmp_path / "up", store) == 2
    assert re.search(r"has \d+ bytes instead of", capsys.readouterr().err)
    assert {file: file.read_bytes() for file in files} == files and not (tmp_path / "up").exists()
    folders = [store.joinpath(*file.relative_to(store).parts[:2]) for file in files]
    for folder in folders:
        shutil.rmtree(folder)
    assert package(made, tmp_path / "up", store) == 2
    assert "gone or elsewhere" in capsys.readouterr().err and not any(folder.exists() for folder in folders)


def test_the_backbone_is_that_of_the_record(quick: list[str], shared_store: Path, tmp_path: Path, capsys: Any) -> None:
    made = record.read(execute(config_of([*quick, "method=ptq", "quant.q=2"])))
    made["model"]["weights_sha256"] = dict.fromkeys(made["model"]["weights_sha256"], "0" * 64)
    made.pop("record_sha256")
    (tmp_path / "other.json").write_text(json.dumps(made))
    assert package(tmp_path / "other.json", tmp_path / "up", shared_store) == 2
    assert "model.safetensors of tiny is not that of the run" in capsys.readouterr().err


def test_a_base_needs_no_trained_adapter(quick: list[str], shared_store: Path, tmp_path: Path) -> None:
    made = execute(config_of([*quick, "method=alphatuning", "quant.q=2"]))
    store = tmp_path / "store"
    shutil.copytree(shared_store, store)
    shutil.rmtree(store / "adapt")
    assert package(made, tmp_path / "base", store, "--as=base") == 0


def test_a_card_says_what_the_folder_holds(quick: list[str], shared_store: Path, tmp_path: Path, capsys: Any) -> None:
    made = execute(config_of([*quick, "method=ptq_w_plus_lora", "quant.q=2"]))
    assert package(made, tmp_path / "up", shared_store) == 0
    text, written = (tmp_path / "up" / "README.md").read_text(), (tmp_path / "up" / "model.safetensors").stat().st_size
    assert "quantization_config" not in json.loads((tmp_path / "up" / "config.json").read_text())
    assert " hold 2-bit" not in text and "2 bits" not in text and "- 2-bit" not in text
    told = float(text.split("| this model | ")[1].split(" MB")[0])
    assert told == pytest.approx(written / 1e6, abs=0.02)

    made = execute(config_of([*quick, "method=alphatuning", "quant.q=2"]))
    assert package(made, tmp_path / "base", shared_store, "--as=base") == 0
    capsys.readouterr()
    assert package(made, tmp_path / "task", shared_store, "--as=adapter", f"--base={tmp_path / 'base'}") == 0
    assert "before uploading, give a hub id" in capsys.readouterr().err
    text = (tmp_path / "task" / "README.md").read_text()
    assert "It belongs to the model base" in text and str(tmp_path) not in text


def test_what_is_read_is_not_overwritten(
    rte: list[str], shared_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    made = execute(config_of([*rte, "method=alphatuning"]))
    dense, base = tmp_path / "bert", tmp_path / "base"
    model = f"--model={dense}"
    assert package(made, base, shared_store, "--as=base", model) == 0
    files = {p: p.read_bytes() for folder in (dense, base) for p in folder.iterdir()}
    monkeypatch.chdir(tmp_path)
    for out in ("bert", str(dense)):
        assert package(made, Path(out), shared_store, "--overwrite", model) == 2
        assert "holds what is read" in capsys.readouterr().err
    assert package(made, base, shared_store, "--overwrite", "--as=adapter", f"--base={base}", model) == 2
    assert "holds what is read" in capsys.readouterr().err
    assert all(path.read_bytes() == content for path, content in files.items())
    inside = [*shared_store.glob("adapt/*/adapter"), *shared_store.glob("quantize/*"), shared_store / "new"]
    for out in inside:
        assert package(made, out, shared_store, "--overwrite", model) == 2
        assert "lies in the artefacts" in capsys.readouterr().err
    assert package(made, shared_store, shared_store, "--overwrite", model) == 2


def test_output_folders_are_not_lost(quick: list[str], shared_store: Path, tmp_path: Path, capsys: Any) -> None:
    made = execute(config_of([*quick, "method=ptq", "quant.q=2"]))
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "thesis.txt").write_text("years of work")
    assert package(made, tmp_path / "up", shared_store, "--overwrite") == 2
    assert (tmp_path / "up" / "thesis.txt").read_text() == "years of work"
    shutil.rmtree(tmp_path / "up")
    assert package(made, tmp_path / "up", shared_store) == 0
    assert package(made, tmp_path / "up", shared_store) == 2
    assert package(made, tmp_path / "up", shared_store, "--overwrite") == 0
    assert "ptq" in capsys.readouterr().out
