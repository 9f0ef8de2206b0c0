"""What would stop or spoil a run is told before it starts, all at once; what can be left out is left out and told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL
from safetensors.torch import load_file, save_file
from toy_checkpoint import write_dense, write_packed
from transformers import BertConfig, BertForMaskedLM, MambaConfig, RobertaConfig, RobertaForMaskedLM, T5Config

from alphatune import store
from alphatune.compose.compose import config_of
from alphatune.data.example import Dataset, Example
from alphatune.errors import UserError
from alphatune.learn import ranks, train
from alphatune.packed import nf4
from alphatune.pages import plots
from alphatune.run import execute, preflight, preflight_model, record, track
from alphatune.search import search, sweep
from alphatune.tables import values
from alphatune.tables.cells import Planner
from alphatune.tables.experiment import Experiment, Row
from alphatune.tools import card

FITS = ["task.max_context=16", "task.max_target=8", "decode.max_new_tokens=8", "task.metrics=[bleu]"]


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-2 of 64 positions and 257 tokens, which are the bytes and the end token."""
    return write_dense(tmp_path_factory.mktemp("models") / "gpt2")


@pytest.fixture
def copy(gpt2: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    return Path(shutil.copytree(gpt2, tmp_path / "model"))


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """The lines that a run is refused with; neither store nor records are made, and nothing trains."""

    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("this must not be reached")

    monkeypatch.setattr(train, "train", never)
    monkeypatch.setattr(store.Store, "get", never)
    monkeypatch.setattr(store.Store, "scratch", never)

    def call(*overrides: str) -> list[str]:
        places = [f"runtime.artifacts={tmp_path / 'store'}", f"runtime.records={tmp_path / 'records'}"]
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(UserError) as caught:
            execute.execute(config_of([*places, "runtime.device=cpu", *overrides]))
        assert sorted(tmp_path.rglob("*")) == before
        return str(caught.value).split("\n")

    return call


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def model(folder: Path) -> list[str]:
    return [*FITS, f"model.name_or_path={folder}"]


def e2e(folder: Path, **splits: int) -> list[str]:
    """Overrides of an E2E task with so many examples of each split."""
    (folder / "e2e").mkdir(parents=True)
    for split, count in splits.items():
        lines = [f"name : Inn {i} | food : Thai||Inn {i} serves Thai food . " for i in range(count)]
        (folder / "e2e" / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return ["task=e2e", f"data.dir={folder}", "data.allow_count_mismatch=true", "task.metrics=[bleu_e2e]"]


def rte(folder: Path, *splits: str) -> list[str]:
    (folder / "glue" / "RTE").mkdir(parents=True)
    head = "index\tsentence1\tsentence2\tlabel\n"
    for split in splits:
        rows = (f"{i}\ta cat sat {i}\ta dog ran\t{('entailment', 'not_entailment')[i % 2]}\n" for i in range(6))
        text = head + "".join(rows)
        if split == "test":
            text = text.replace("\tlabel", "").replace("\tentailment", "").replace("\tnot_entailment", "")
        (folder / "glue" / "RTE" / f"{split}.tsv").write_text(text)
    return ["task=glue/rte", f"data.dir={folder}", "data.allow_count_mismatch=true"]


# ---- several at once -----------------------------------------------------------------------------------------------


def test_all_problems_are_listed_at_once(
    copy: Path, refused: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    edit(copy / "tokenizer_config.json", eos_token=None, bos_token=None)
    given = [*model(copy), "task.metrics=[blue]", "task.subsets=[nowhere]", "quant.group_size=100",
             f"runtime.artifacts={file}"]  # fmt: skip
    lines = refused(*given)
    assert lines == [
        "5 problems, nothing was started:",
        "  1. task.subsets: no example is of nowhere; must be among seen, unseen",
        lines[2],  # below
        f"  3. runtime.artifacts={file}: {file}: cannot be written to: it is not a folder; give another folder",
        "  4. quant.group_size=100: a group larger than a row of 64 weights must span whole rows; use at most 64 or a "
        "multiple of it",
        f"  5. model.name_or_path={copy}: its tokenizer has no end token for texts: set eos_token in its "
        "tokenizer_config.json",
    ]
    assert lines[2].startswith("  2. task.metrics: blue is unknown: choose from bleu, ")
    assert execute.main([*given, "runtime.device=cpu"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "Traceback" not in said and said.count("\n") == len(lines)


def test_a_run_that_is_recorded_is_not_looked_at_again(
    quick: list[str], monkeypatch: pytest.MonkeyPatch, shared_store: Path
) -> None:
    config = config_of([*quick, "method=ptq"])
    path = execute.execute(config)
    monkeypatch.setattr(preflight, "check", lambda run: pytest.fail("looked at again"))
    assert execute.execute(config) == path


# ---- splits --------------------------------------------------------------------------------------------------------


def test_a_split_that_is_needed_and_empty(refused: Any, tmp_path: Path) -> None:
    given = e2e(tmp_path / "a", valid=2, test=2)
    assert refused(*given, "method=full_ft") == [
        "task=e2e has no train examples (files read: valid.txt, test.txt), but method=full_ft trains: give the file of "
        "the train split"
    ]
    assert refused(*given, "method=ptq", "quant.solver=gptq") == [
        "task=e2e has no train examples (files read: valid.txt, test.txt), but quant.solver=gptq calibrates on them: "
        "give the file of the train split, or use quant.solver=alternating"
    ]
    assert refused(*e2e(tmp_path / "b", train=2, valid=2)) == [
        "task=e2e has no test examples (files read: train.txt, valid.txt) to score with bleu_e2e: give the file of the "
        "test split, or set task.evaluate_on=validation, task.metrics=[]"
    ]
    assert refused(*e2e(tmp_path / "c", train=2), "task.evaluate_on=validation") == [
        "task=e2e has no validation examples (files read: train.txt) to score with bleu_e2e: give the file of the "
        "validation split, or set task.metrics=[]"
    ]


@pytest.fixture(scope="module")
def unvalidated(tmp_path_factory: pytest.TempPathFactory, shared_store: Path) -> tuple[dict[str, Any], str]:
    """The record of a run without a validation split, and what was logged."""
    import logging

    folder = tmp_path_factory.mktemp("unvalidated")
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda entry: lines.append(entry.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("alphatune")
    log.addHandler(handler)
    level = log.level
    log.setLevel("INFO")
    try:
        path = execute.execute(config_of([
            *SMALL, *e2e(folder / "data", train=8, test=2), "method=ptq_full_ft", "quant.q=2", "hparams.epochs=1",
            "hparams.batch_size=4", "decode.beam=2", "decode.max_new_tokens=4", "runtime.device=cpu",
            "runtime.progress=false", f"runtime.artifacts={shared_store}", f"runtime.records={folder / 'records'}",
        ]))  # fmt: skip
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
    return record.read(path), "\n".join(lines)


def test_without_validation_examples_a_run_trains_and_decodes_and_says_what_is_missing(
    unvalidated: tuple[dict[str, Any], str],
) -> None:
    made, said = unvalidated
    assert made["status"] == "completed" and made["validation_loss"] is None
    assert made["curves"]["validation"] == [] and made["curves"]["train"]
    assert made["data"]["validation"] == 0 and "bleu_e2e" in made["scores"]["all"]
    assert "evaluate" not in made["stages"] and "evaluate (made)" not in made["stages"]
    lines = said.split("\n")
    assert lines.count(
        "task=e2e has no validation examples (files read: train.txt, test.txt): the record has no validation loss and "
        "no curve of it"
    ) == 1  # fmt: skip
    assert f"{made['run_id']}: bleu_e2e all {made['scores']['all']['bleu_e2e']['value']:.2f}" in lines
    assert "loss 0.000" not in said


def test_a_record_without_validation_loss_is_shown_everywhere(
    unvalidated: tuple[dict[str, Any], str], tmp_path: Path
) -> None:
    made, _ = unvalidated
    assert "No validation loss: the data has no validation examples." in card.render(made)
    assert "validation_loss" not in track.summary(made) and track.summary(made)["status"] == "completed"
    assert all(set(losses) == {"train_loss"} for _, losses in track.points(made["curves"]))
    assert values.of_record(made, "valid_loss") is None and values.of_record(made, "valid_rise") is None
    written = plots.loss_panels([plots.Panel("", [("FT", {0: made})])], tmp_path / "figure", "title")
    assert "no validation curve" in next(p for p in written if p.suffix == ".svg").read_text()
    with pytest.raises(UserError, match="^the record has no validation_loss: it has status, bleu_e2e/all, "):
        search.objective(made, "validation_loss")


def test_searches_refuse_data_without_validation_examples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    given = e2e(tmp_path / "data", train=2, test=2)
    monkeypatch.setattr(execute, "execute", lambda *args: pytest.fail("a trial was started"))
    file = tmp_path / "mine.yaml"
    file.write_text(
        "method: grid\nmetric: {name: validation_loss, goal: minimize}\n"
        "parameters:\n  hparams.learning_rate: {values: [0.1, 0.2]}\n"
        f"command: [python, -m, alphatune.run, model=tiny, {', '.join(map(json.dumps, given))}]\n"
    )
    assert sweep.load(str(file)).metric == "validation_loss"
    assert search.main([str(file), "--storage", str(tmp_path / "log")]) == 2
    assert (
        capsys.readouterr().err
        == "error: mine: task=e2e has no validation examples, so trials have no validation_loss\n"
    )
    table = Experiment(
        title="t", base=given, seeds=[0], columns=[], rows=[Row(id="a", label="A", search=["1e-3", "1e-2"])]
    )
    obstacles = {cell.obstacle for cell in Planner(table, [], run=True).cells().search}
    assert obstacles == {"task=e2e has no validation examples to choose a learning rate by"}


def test_what_needs_no_split_runs_without(quick: list[str], tmp_path: Path) -> None:
    given = [*quick, *e2e(tmp_path / "data", train=8), "method=ptq_full_ft", "quant.q=2", "task.metrics=[]"]
    made = record.read(execute.execute(config_of(given)))  # neither validation nor test: the weights alone
    assert made["validation_loss"] is None and made["scores"] == {} and made["curves"]["train"]
    assert len(made["quantization"]) == 8  # 2 layers x 4 matrices
    given = [*quick, *e2e(tmp_path / "other", test=3), "method=ptq"]
    made = record.read(execute.execute(config_of(given)))  # PTQ without calibration: nothing to train on
    assert "bleu_e2e" in made["scores"]["all"] and made["data"]["train"] == 0


# ---- subsets, metrics, labels --------------------------------------------------------------------------------------


def warned(*overrides: str, dataset: Dataset | None = None) -> list[str]:
    from alphatune.data.load import load
    from alphatune.run.pipeline import Run

    config = config_of(["runtime.device=cpu", *overrides])
    return preflight.check(Run(config, dataset or load(config.task, config.data)))


def test_subsets(refused: Any, tmp_path: Path) -> None:
    assert refused("task.subsets=[seen,nowhere]") == [
        "task.subsets: no example is of nowhere; must be among seen, unseen"
    ]
    assert refused(*e2e(tmp_path / "data", train=2, valid=2, test=2), "task.subsets=[seen]") == [
        "task.subsets: no example is of seen; the data has no subsets: set task.subsets=[]"
    ]
    assert warned() == []
    assert warned("task.evaluate_on=validation") == [
        "task.subsets: no validation example is of unseen: it is not scored"
    ]
    assert warned("data.eval_limit=1") == [
        "task.subsets: no test example is of unseen with data.eval_limit=1: it is not scored"
    ]


def test_metrics(refused: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused("task.metrics=[bleu,blue]")[0].startswith("task.metrics: blue is unknown: choose from bleu, ")
    assert refused("task.metrics=[accuracy]")[0].startswith(
        "task.metrics: accuracy is of labels, but task=toy is generation: choose from bleu, "
    )
    labels = ["accuracy", "f1", "matthews", "pearson", "spearman"]
    given = rte(tmp_path / "data", "train", "dev")
    bert = f"model.name_or_path={write_bert(tmp_path / 'bert')}"
    assert refused(*given, bert, "task.metrics=[bleu]") == [
        f"task.metrics: bleu is of texts, but task=glue/rte is classification: choose from {', '.join(labels)}, loss"
    ]
    pairs = [Example("a", "x", label=1)]
    with pytest.raises(
        UserError, match=r"^task.metrics: f1 is of two classes, task.labels has 3: choose from accuracy, m"
    ):
        warned(*given, bert, "task.metrics=[f1]", "task.labels=[a,b,c]", dataset=Dataset(pairs, pairs, []))
    with pytest.raises(
        UserError, match="^task.metrics: accuracy is of classes, but task.labels is empty, so numbers are "
    ):
        warned(*given, bert, "task.metrics=[accuracy]", "task.labels=[]", dataset=Dataset(pairs, pairs, []))
    assert warned(*given, bert, "task.metrics=[pearson]", "task.labels=[]", dataset=Dataset(pairs, pairs, [])) == []
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "which", lambda name: None)
        assert warned("task.metrics=[bleu,meteor]") == [
            "meteor will be absent from the record: no Java runtime: no program `java` on the PATH"
        ]


def write_bert(folder: Path, **more: Any) -> Path:
    """A random BERT with the tokenizer of `write_dense`, which has no pad token: the end token takes its place."""
    write_dense(folder)
    (folder / "model.safetensors").unlink()
    (folder / "generation_config.json").unlink()
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    BertForMaskedLM(BertConfig(vocab_size=257, max_position_embeddings=160, **size | more)).save_pretrained(folder)
    return folder


def test_labels(refused: Any, tmp_path: Path) -> None:
    bert = f"model.name_or_path={write_bert(tmp_path / 'bert')}"
    given = [*rte(tmp_path / "data", "train", "dev", "test"), bert]
    assert warned(*given) == []  # it has no pad token: the end token takes its place
    edit(tmp_path / "bert" / "tokenizer_config.json", eos_token=None)
    assert refused(*given) == [f"{bert}: its tokenizer has no pad token: set pad_token in its tokenizer_config.json"]
    edit(tmp_path / "bert" / "tokenizer_config.json", eos_token="<|endoftext|>")
    assert refused(*given, "task.evaluate_on=test") == [
        "test split: 6 of 6 labels are hidden: give files with labels or set task.evaluate_on=validation"
    ]
    good = [Example(str(i), "a", label=i) for i in range(2)]
    with pytest.raises(UserError, match=r"^train split: x has the label 2, which is not 0 to 1 \(task.labels\)$"):
        warned(*given, dataset=Dataset([*good, Example("x", "a", label=2)], good, []))
    with pytest.raises(UserError, match="label nan, which is not a number"):
        numbers = [*given, "task=glue/stsb"]
        warned(*numbers, dataset=Dataset([Example("x", "a", label=float("nan"))], [Example("y", "a", label=1.5)], []))
    texts = [Example("t", "a", targets=("b",))]
    with pytest.raises(UserError, match=r"^test split: u has no text to compare with \(1 in all\)"):
        warned("task.subsets=[]", dataset=Dataset(texts, texts, [Example("u", "a")]))


# ---- the backbone --------------------------------------------------------------------------------------------------


def test_a_model_that_fits_draws_no_word(gpt2: Path) -> None:
    assert warned(*model(gpt2)) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: [f.unlink() for f in d.glob("*token*")], "{} has no tokenizer: copy its tokenizer files there"),
        (lambda d: [(d / "tokenizer.json").unlink(),
                    edit(d / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")],
         "model.name_or_path={}: its tokenizer knows no token of the texts: files of it are missing or belong to "
         "another model"),
        (lambda d: edit(d / "tokenizer_config.json", eos_token=None),
         "model.name_or_path={}: its tokenizer has no end token for texts: set eos_token in its tokenizer_config.json"),
        (lambda d: (d / "config.json").write_text('{"model_type": "gpt2"'), "{}/config.json: not JSON: "),
        (lambda d: edit(d / "config.json", n_head=3),
         "model.name_or_path={}: describes no model: `embed_dim` must be divisible by num_heads"),
        (lambda d: edit(d / "config.json", model_type="gpt9"), "model.name_or_path={}: describes no model: "),
        (lambda d: edit(d / "config.json", n_positions=65),
         "{}: transformer.wpe.weight has the shape [64, 64], by config.json it is [65, 64]: one of the two belongs to "
         "another model"),
        (lambda d: os.truncate(d / "model.safetensors", 40_000), "{}/model.safetensors: damaged or cut off ("),
        (lambda d: os.truncate(d / "model.safetensors", 0), "{}/model.safetensors: damaged or cut off ("),
        (lambda d: save_file({"a": torch.zeros(2)}, d / "model.safetensors"),
         "{}: the weights hold none of the names of GPT2LMHeadModel, which config.json describes"),
        (lambda d: (d / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}'),
         "{} lacks model-1.safetensors, which its index names: copy the whole checkpoint"),
    ],
)  # fmt: skip
def test_a_damaged_folder(damage: Callable[[Path], Any], message: str, copy: Path, refused: Any) -> None:
    damage(copy)
    (line,) = refused(*model(copy))
    assert line.startswith(message.format(copy))


def test_a_tokenizer_with_more_tokens_than_the_embedding_has_rows(copy: Path, refused: Any) -> None:
    weights = load_file(copy / "model.safetensors")
    weights["transformer.wte.weight"] = weights["transformer.wte.weight"][:200].clone()
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    edit(copy / "config.json", vocab_size=200)
    (line,) = refused(*model(copy))
    assert line.startswith(f"model.name_or_path={copy}: its tokenizer has the token ")
    assert line.endswith(" with number 256, but the embedding has 200 rows: the tokenizer belongs to another model")


def test_a_special_token_that_no_text_has_may_lie_outside_the_embedding(copy: Path) -> None:
    content = json.loads((copy / "tokenizer.json").read_text())
    content["added_tokens"].append({**content["added_tokens"][0], "id": 257, "content": "<image>"})
    (copy / "tokenizer.json").write_text(json.dumps(content))
    assert warned(*model(copy)) == []


def test_architectures_that_do_not_fit_the_task(refused: Any, copy: Path, tmp_path: Path) -> None:
    bert = write_bert(tmp_path / "bert")
    assert refused(*model(bert)) == [
        f"model.name_or_path={bert}: bert is an encoder, which generates no text; task=toy needs a decoder, e.g. GPT-2"
    ]
    MambaConfig(vocab_size=257, hidden_size=16, num_hidden_layers=1).save_pretrained(copy)
    assert f"model.name_or_path={copy}: mamba cannot be decoded here: its forward takes no past_key_values" in (
        refused(*model(copy))
    )
    T5Config(vocab_size=257, d_model=32, num_layers=1).save_pretrained(copy)
    assert f"model.name_or_path={copy}: t5 is an encoder-decoder; task=toy needs a decoder or an encoder alone" in (
        refused(*model(copy))
    )
    edit(copy / "config.json", model_type="codegen", is_encoder_decoder=False)
    lines = refused(*rte(tmp_path / "data", "train", "dev"), f"model.name_or_path={copy}", "task.max_context=16")
    assert (
        f"model.name_or_path={copy}: transformers has no AutoModelForSequenceClassification of codegen, which "
        "task=glue/rte needs"
    ) in lines


def test_a_packed_model_is_not_quantised_again(gpt2: Path, refused: Any, tmp_path: Path) -> None:
    packed = write_packed(gpt2, tmp_path / "packed")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(gpt2 / name, packed / name)
    assert refused(*model(packed)) == [
        f"{packed} is quantised already (alphatune_bcq): give the dense checkpoint, or method.quantize=given, which "
        "takes its codes"
    ]
    given = [*model(packed), "method.quantize=given"]
    named = "quant.format=bcq quant.q=2 quant.group_size=null quant.offset=false"
    assert refused(*given) == [f"{packed}: its codes have {named}; name them so, whatever differs from the defaults"]
    assert warned(*given, "quant.q=2") == warned(*given, "quant.q=2", "method=lora") == []
    assert refused(*model(gpt2), "method.quantize=given") == [
        f"{gpt2}: is not packed, but method.quantize=given takes its codes: `alphatune quantize` packs it"
    ]
    assert refused(*given, "quant.q=2", "method=full_ft") == [
        "method.quantize=given has codes for weights, which do not train: use method.train=scales or lora"
    ]
    (residual,) = refused(*given, "quant.q=2", "method.train=lora", "method.lora.start=residual")
    assert "with method.quantize=given the dense weights are not there" in residual


def test_layers_that_settings_do_not_fit(refused: Any, gpt2: Path) -> None:
    assert refused(*model(gpt2), "quant.group_size=0.3h") == [
        "quant.group_size=0.3h: 19.2 is not a whole number of weights at model width 64"
    ]
    assert refused("quant.group_size=1000") == [  # the embedded model: rows of 128 and 512
        "quant.group_size=1000: a group larger than a row of 128 weights must span whole rows; use at most 128 or a "
        "multiple of it"
    ]
    assert warned(*model(gpt2), "quant.group_size=128", "quant.solver=alternating") == []
    assert (
        "solver=gptq: group_size=128 spans several rows of 64 weights"
        in (refused(*model(gpt2), "quant.group_size=128", "quant.solver=gptq")[0])
    )
    assert refused("method=alphatuning", "method.quantize=never") == [
        "method=alphatuning trains scales, but with method.quantize=never nothing is quantised when it trains: use "
        "method.quantize=before"
    ]
    assert refused("method=ptq_merged_lora", "method.train=weights")[0].startswith("method.quantize=merged is of W ")
    assert refused("method=ptq_full_ft", "method.train=nothing")[0].startswith("method.quantize=adapted, but ")


def test_nf4_and_what_starts_from_it(refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nf4, "installed", lambda: True)
    assert refused("method=full_ft", "method.quantize=nf4")[0].startswith("method.quantize=nf4 freezes the weights")
    assert refused("method=lora", "method.lora.start=residual")[0].endswith("use method=bcq_lora or method=qlora")
    monkeypatch.setattr(nf4, "installed", lambda: False)
    assert refused("method=qlora") == ["method=qlora: needs bitsandbytes: pip install 'alphatune[qlora]'"]


def test_lora_without_targets(refused: Any, gpt2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alphatune.learn import methods

    monkeypatch.setattr(methods, "_QUERY_VALUE", ("none",))
    assert refused(*model(gpt2), "method=lora") == [
        "method.lora.targets=query_value: this architecture names no query or value layer; use linear"
    ]


@pytest.mark.slow
def test_a_hub_model_is_looked_at_in_the_cache(copy: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--someone--small" / "snapshots" / ("a" * 40)
    snapshot.parent.mkdir(parents=True)
    edit(copy / "tokenizer_config.json", eos_token=None)
    shutil.copytree(copy, snapshot)
    given = [*FITS, "model.name_or_path=someone/small", f"model.revision={'a' * 40}", "quant.group_size=100"]
    done = subprocess.run(
        [sys.executable, "-m", "alphatune.run", *given, f"runtime.artifacts={tmp_path / 'store'}"],
        env={**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and not (tmp_path / "store").exists()
    assert [line for line in done.stderr.splitlines() if "torchvision" not in line] == [
        "error: 2 problems, nothing was started:",
        "  1. quant.group_size=100: a group larger than a row of 64 weights must span whole rows; use at most 64 or a "
        "multiple of it",
        "  2. model.name_or_path=someone/small: its tokenizer has no end token for texts: set eos_token in its "
        "tokenizer_config.json",
    ]


# ---- lengths -------------------------------------------------------------------------------------------------------


def test_texts_longer_than_the_positions(refused: Any, gpt2: Path, tmp_path: Path) -> None:
    texts = [Example(f"t{i}", "a" * 30, targets=("b" * n,)) for i, n in enumerate((5, 40, 20))]
    given = [*model(gpt2), "task.max_context=40", "task.max_target=50", "decode.max_new_tokens=10", "task.subsets=[]"]
    with pytest.raises(UserError) as caught:  # 30 + end + blank + 40 + end
        warned(*given, dataset=Dataset(texts, texts[:1], texts))
    assert str(caught.value) == (
        "train split: t1 takes 73 tokens, the model has 64 positions: lower task.max_context=40 or task.max_target=50"
    )
    assert warned(*given, dataset=Dataset(texts[::2], texts[:1], texts)) == []  # 30 + 1 + 1 + 20 + 1 = 53
    with pytest.raises(UserError) as caught:
        warned(*given, "decode.max_new_tokens=40", dataset=Dataset(texts[::2], texts[:1], texts))
    assert str(caught.value) == (
        "test split: t1 takes 71 tokens (decode.max_new_tokens=40 among them), the model has 64 positions: lower "
        "task.max_context=40 or decode.max_new_tokens=40"
    )
    nothing = [*given, "decode.max_new_tokens=40", "task.metrics=[]"]
    assert warned(*nothing, dataset=Dataset(texts[::2], texts[:1], texts)) == []  # nothing is decoded
    bert = write_bert(tmp_path / "bert")
    long = [Example("long", "a" * 300, label=1)]
    with pytest.raises(
        UserError, match="^train split: long takes 200 tokens, the model has 160 positions: lower task.max"
    ):
        warned(*rte(tmp_path / "data", "train", "dev"), f"model.name_or_path={bert}", "task.max_context=200",
               dataset=Dataset(long, [Example("s", "a", label=1)], []))  # fmt: skip


def test_roberta_keeps_positions_for_padding() -> None:
    size: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    network = RobertaForMaskedLM(
        RobertaConfig(vocab_size=64, max_position_embeddings=40, pad_token_id=1, **size)
    ).eval()
    limit = preflight_model.positions(network)
    assert limit == 38
    network(input_ids=torch.full((1, limit), 5))  # as many fit, one more does not
    with pytest.raises((IndexError, RuntimeError)):
        network(input_ids=torch.full((1, limit + 1), 5))


# ---- places and machines -------------------------------------------------------------------------------------------


def test_places_that_cannot_be_written_to(refused: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for key in ("runtime.records", "runtime.artifacts"):
        for where, reason in (
            ("/dev/null", "/dev/null: cannot be written to: it is not a folder"),
            (f"{file}/x", f"{file}: cannot be written to: it is not a folder"),
            ("/proc/x", "/proc: cannot be written to: No such file or directory"),
        ):
            assert refused(f"{key}={where}") == [f"{key}={where}: {reason}; give another folder"]
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "adapt").write_text("")  # in the place of a stage's folder
    assert refused() == [
        f"runtime.artifacts={tmp_path / 'store'}: {tmp_path / 'store' / 'adapt'}: cannot be written to: it is not a "
        "folder; give another folder"
    ]

    def readonly(*args: Any, **kwargs: Any) -> str:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", readonly)
    assert store.unwritable(tmp_path / "new") == f"{tmp_path}: cannot be written to: Read-only file system"


@pytest.mark.parametrize(("flags", "key"), [([], "hydra.run.dir"), (["-m", "seed=0,1"], "hydra.sweep.dir")])
def test_a_working_folder_that_hydra_cannot_make(
    flags: list[str], key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for where in ("/proc/x", "/proc/${now:%Y}", "/proc/x-${now:%Y}"):
        assert execute.main([*flags, f"{key}={where}"]) == 2
        assert capsys.readouterr().err == (
            f"error: {key}={where}: /proc: cannot be written to: No such file or directory; give another folder\n"
        )


def test_a_gpu_that_is_not_there(refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert refused("runtime.device=cuda") == ["runtime.device=cuda: torch sees no GPU here; use auto or cpu"]


def test_a_model_is_cut_up_among_processes_where_its_weights_train(
    refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (alone,) = refused("method=full_ft", "runtime.shard=true")
    assert "torchrun --nproc-per-node N" in alone
    monkeypatch.setattr(ranks, "size", lambda: 2)
    (frozen,) = refused("method=lora", "runtime.shard=true")
    assert frozen.startswith("runtime.shard=true: method=lora trains no weights")
    (rows,) = refused("method=full_ft", "runtime.shard=true", "hparams.optimizer=adafactor")
    assert "hparams.optimizer=adafactor needs whole rows: use adamw" in rows


@pytest.mark.parametrize("fast", [True, False])
def test_bfloat16_on_a_cpu_without_units_for_it(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "fast_bfloat16", lambda: fast)
    told = ["trainer.precision=bfloat16: this CPU has no bfloat16 units and is slower with it; set "
            "trainer.precision=float32"]  # fmt: skip
    assert warned("trainer.precision=bfloat16") == ([] if fast else told)
    assert warned("trainer.precision=bfloat16", "method=ptq") == []  # nothing trains


def test_what_the_cpu_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    info = Path("/proc/cpuinfo")
    flags = info.read_text().split() if info.exists() else []
    if "flags" in flags:  # x86
        assert preflight.fast_bfloat16() == bool({"avx512_bf16", "amx_bf16"} & set(flags))
    for unit in ("avx512_bf16", "amx_bf16", "bf16"):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda unit=unit: {"avx2": True, unit: True})
        assert preflight.fast_bfloat16()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_f": True, "avx512_bf16": False})
    assert not preflight.fast_bfloat16()
