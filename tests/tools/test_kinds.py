"""Every command that takes a model says in one line what kind it needs, and never leaves a folder without a model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from toy_checkpoint import write_adapter, write_dense, write_packed
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    GPT2ForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

import alphatune
from alphatune.__main__ import COMMANDS, main, parsers
from alphatune.hf import checkpoints
from alphatune.packed.linear import packed_layers

BERT = BertConfig(vocab_size=257, hidden_size=32, num_hidden_layers=1, intermediate_size=64, num_attention_heads=2,
                  max_position_embeddings=64, num_labels=3)  # fmt: skip
OTHERS: dict[str, Any] = {
    "classifier": lambda: BertForSequenceClassification(BERT),
    "masked": lambda: BertForMaskedLM(BERT),
    "encoder-decoder": lambda: T5ForConditionalGeneration(T5Config(
        vocab_size=257, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2, decoder_start_token_id=1,
        pad_token_id=1,
    )),
    "body": lambda: BertModel(BERT),
}  # fmt: skip
SAID = {
    "classifier": "holds BertForSequenceClassification (classifier); needed is a causal language model",
    "masked": "holds BertForMaskedLM (masked language model); needed is a causal language model",
    "encoder-decoder": "holds T5ForConditionalGeneration (encoder-decoder); needed is a causal language model",
    "body": "the weights lack cls.predictions.bias (6 in all) of BertLMHeadModel; needed is a causal language model",
}


def wrong(capsys: pytest.CaptureFixture[str], match: str, *arguments: object) -> None:
    """A command must fail with one line that says `match`."""
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    found = capsys.readouterr()
    assert found.err.startswith("error: ") and match in found.err and found.err.count("\n") == 1, found.err
    assert not found.out


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dense/ and packed/ of a GPT-2, adapters of it, and models of other kinds with the same tokenizer."""
    folder = tmp_path_factory.mktemp("kinds")
    write_dense(folder / "dense")
    write_packed(folder / "dense", folder / "packed")
    checkpoints.copy_tokenizer(folder / "dense", folder / "packed")
    write_adapter(folder / "packed", folder / "scales", 0)
    write_adapter(folder / "dense", folder / "lora", 0, lora=True)
    torch.manual_seed(0)
    for name, make in OTHERS.items():
        make().save_pretrained(folder / name)
        checkpoints.copy_tokenizer(folder / "dense", folder / name)
    return folder


@pytest.mark.parametrize("kind", OTHERS)
def test_generating_needs_a_causal_language_model(kind: str, home: Path, tmp_path: Path, capsys: Any) -> None:
    short = ("--prompt", "sun", "--max-new-tokens", 2)
    wrong(capsys, SAID[kind], "generate", home / kind, *short)
    assert main(["quantize", str(home / kind), str(tmp_path / "packed")]) == 0  # of any kind
    capsys.readouterr()
    wrong(capsys, SAID[kind], "generate", tmp_path / "packed", *short)
    assert main(["inspect", str(tmp_path / "packed")]) == 0
    assert main(["export", str(tmp_path / "packed"), str(tmp_path / "out"), "--to", "dense"]) == 0
    capsys.readouterr()
    wrong(capsys, SAID[kind], "quantize", home / kind, tmp_path / "lm", "--task", "causal-lm")
    assert not (tmp_path / "lm").exists()


def test_a_tokenizer_of_another_model_is_told_of(home: Path, tmp_path: Path, capsys: Any) -> None:
    model = AutoModelForCausalLM.from_pretrained(home / "dense")
    model.resize_token_embeddings(40)
    model.save_pretrained(tmp_path)
    checkpoints.copy_tokenizer(home / "dense", tmp_path)
    wrong(capsys, "but the model has 40: the tokenizer is that of another model",
          "generate", tmp_path, "--prompt", "sun", "--max-new-tokens", 2)  # fmt: skip


def test_a_classifier_takes_a_body_or_a_language_model(home: Path, tmp_path: Path, capsys: Any) -> None:
    for name in ("classifier", "body", "dense"):
        assert main(["quantize", str(home / name), str(tmp_path / name), "--task", "classification"]) == 0
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path / name)
        assert packed_layers(model)
    capsys.readouterr()
    wrong(capsys, "needed is a classifier, or a body that takes a new head",
          "quantize", home / "encoder-decoder", tmp_path / "out", "--task", "classification")  # fmt: skip


def test_adapters_are_no_models(home: Path, tmp_path: Path, capsys: Any) -> None:
    both = Path(shutil.copytree(home / "dense", tmp_path / "both"))
    for file in (home / "lora").iterdir():
        if not (both / file.name).exists():
            shutil.copy(file, both)
    short = ("--prompt", "sun", "--max-new-tokens", 2)
    for folder, held in ((home / "lora", "is an adapter, not a model"), (both, "holds an adapter beside a model")):
        said = f"{folder} {held}: merge it first, model.merge_and_unload(), or give the base"
        wrong(capsys, said, "quantize", folder, tmp_path / "out")
        wrong(capsys, said, "generate", folder, *short)
        wrong(capsys, said, "export", folder, tmp_path / "out", "--to", "dense")
        assert not (tmp_path / "out").exists()
        assert main(["run", f"model.name_or_path={folder}", "trainer.max_steps=1"]) == 2
        assert held in capsys.readouterr().err
    wrong(capsys, "has no adapter_config.json", "generate", home / "packed", "--adapter", home / "dense", *short)
    wrong(capsys, "is not packed: there is nothing", "export", home / "dense", tmp_path / "x", "--to", "dense")


def test_adapters_that_generate_nothing_are_told_of(home: Path, tmp_path: Path, capsys: Any) -> None:
    classifier = GPT2ForSequenceClassification.from_pretrained(home / "packed", pad_token_id=0)
    tuned = get_peft_model(classifier, alphatune.AlphaTuningConfig(task_type="SEQ_CLS"))
    tuned.save_pretrained(str(tmp_path / "classes"))
    prompts = PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(home / "packed"), prompts).save_pretrained(
        str(tmp_path / "prompts")
    )
    command = ("generate", home / "packed", "--prompt", "sun", "--max-new-tokens", 2, "--adapter")
    wrong(capsys, "an adapter for SEQ_CLS; needed is one of a causal language", *command, tmp_path / "classes")
    wrong(capsys, "PROMPT_TUNING puts prompts in front of the text", *command, tmp_path / "prompts")


def test_help_says_what_each_command_takes() -> None:
    wanted = {
        "quantize": "dense transformers model of any kind",
        "generate": "causal language model",
        "inspect": "checkpoint, or of an adapter",
        "export": "packed checkpoint, a model of any kind",
    }
    for name, text in wanted.items():
        parser, _ = parsers()[name]
        assert text in " ".join(parser.format_help().split()), name
    assert wanted.keys() <= COMMANDS.keys()
