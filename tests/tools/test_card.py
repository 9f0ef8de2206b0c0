"""The model card says what the record says, in a form that the hub reads."""

from __future__ import annotations

import ast
import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from alphatune.__main__ import main
from alphatune.compose.compose import config_of
from alphatune.errors import UserError
from alphatune.groups import choices
from alphatune.run import record
from alphatune.run.execute import execute
from alphatune.tools import card


def made(method: str = "alphatuning", task: str = "webnlg", **model: Any) -> dict[str, Any]:
    """A record as `run.py` writes it, without having run."""
    config = record.public_config(config_of([f"method={method}", f"task={task}", "model=gpt2-medium", "seed=3"]))
    config["model"].update(model)
    return {
        "schema": 1, "run_id": f"{task}/gpt2-medium/{method}/q3-seed3-0123456789", "status": "completed",
        "label": config["method"]["label"], "seed": 3, "config": config, "validation_loss": 1.25,
        "scores": {"all": {"bleu": {"value": 46.123456, "signature": "bleu|case:lc"}}, "seen": {}},
        "absent_metrics": {"meteor": "no Java"},
        "sizes": {"parameters": 354823168, "linear_weights": 301989888, "groups": 221184,
                  "trainable_parameters": 221184, "dense_bytes": 1419292672, "total_bytes": 327229440,
                  "checkpoint_bytes": 884736},
        "model": {"identity": {"hub": config["model"]["name_or_path"], "revision": "abc"}, "weights_sha256": {}},
        "data": {"train": 18025, "validation": 870, "test": 1862},
        "environment": {"python": "3.11.7", "packages": {"torch": "2.13.0", "transformers": "5.23.0", "peft": None},
                        "gpu": None, "cpu": "a CPU"},
        "git": {"commit": "0123456789abcdef", "dirty": False},
    }  # fmt: skip


def front(text: str) -> dict[str, Any]:
    assert text.startswith("---\n")
    values: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return values


def test_the_front_matter_is_what_the_hub_reads() -> None:
    text = card.render(made(), "someone/gpt2-medium-webnlg", base="someone/gpt2-medium-3bit")
    values = front(text)
    assert values["library_name"] == "peft" and values["base_model"] == "someone/gpt2-medium-3bit"
    assert values["tags"] == ["alphatune", "alphatuning", "bcq", "3-bit"]
    assert values["datasets"] == ["webnlg"] and values["metrics"] == ["bleu"]
    read = ModelCard(text).data  # the hub's own reader
    assert read.to_dict()["library_name"] == "peft" and read.eval_results is not None
    assert [(r.metric_type, r.metric_value, r.dataset_name) for r in read.eval_results] == [("bleu", 46.1235, "webnlg")]


def test_the_text_has_scores_with_n_and_seed_sizes_data_and_versions() -> None:
    text = card.render(made())
    for part in ("| bleu | all | 46.12 |", "n = 1862 inputs of the test split, one run, seed 3", "0.88 MB", "327.23 MB",
                 "221,184", "CC BY-NC-SA 4.0", "transformers 5.23.0", "3-bit binary codes (greedy)",
                 "Not computed: meteor (no Java).", "commit 0123456789ab", "18025 training examples"):  # fmt: skip
        assert part in text, part
    assert "peft None" not in text and "None" not in text


@pytest.mark.parametrize("method", choices("method"))
def test_every_method_has_a_card_whose_code_is_code(method: str) -> None:
    text = card.render(made(method), "someone/model")
    code = text.split("```python\n")[1].split("```")[0]
    names = {alias.name for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import) for alias in node.names}
    assert ('from_pretrained("someone/model")' in code) and len(code.strip().splitlines()) <= 6
    assert ("alphatune" in names) == (method not in ("full_ft", "lora", "ptq_w_plus_lora"))
    assert front(text)["library_name"] == ("peft" if method in ("lora", "bcq_lora", "alphatuning", "peqa")
                                           else "transformers")  # fmt: skip


def test_a_local_model_has_no_hub_id() -> None:
    local = made(name_or_path="mini-gpt2")
    local["model"]["identity"] = {"weights_sha256": {}}
    assert "base_model" not in front(card.render(local))


def test_a_classifier_is_loaded_as_one() -> None:
    record_ = made(task="glue/rte")
    assert "AutoModelForSequenceClassification" in card.render(record_)
    assert front(card.render(record_))["pipeline_tag"] == "text-classification"


def test_an_adapter_names_its_own_base_and_no_other() -> None:
    assert "base_model" not in front(card.render(made()))  # the dense model is not what it belongs to
    for base in ("someone/packed", "packed"):
        text = card.render(made(), kind="adapter", base=base)
        assert f"It belongs to the model {base}" in text and f'AutoTokenizer.from_pretrained("{base}")' in text
        assert front(text).get("base_model") == (base if "/" in base else None)
    lora = card.render(made("lora"))
    assert front(lora)["base_model"] == "openai-community/gpt2-medium"
    assert "It belongs to openai-community/gpt2-medium" in lora and "LoRA: low-rank matrices of rank" in lora


def test_a_folder_that_is_dense_again_is_not_called_packed() -> None:
    text = card.render(made("ptq_w_plus_lora"), kind="model")
    assert " hold 3-bit" not in text and "dense float32 weights" in text and "3 bits" not in text
    assert not {"bcq", "3-bit"} & set(front(text)["tags"])
    assert "| this model | 1419.29 MB |" in text and "stored per task" not in text


def test_a_base_has_no_sizes_of_the_adapted_model() -> None:
    text = card.render(made("bcq_lora"), kind="base")
    assert "in use" not in text and "per task" not in text and "1419.29 MB" in text


def test_the_wording_fits_the_numbers() -> None:
    record_ = made()
    record_["config"]["hparams"]["epochs"] = 1
    record_["git"]["dirty"] = True
    text = card.render(record_)
    assert ", 1 epoch (" in text and "scales per row." in text
    assert "commit 0123456789ab with changes that were not committed." in text
    record_["config"]["quant"]["group_size"] = 64
    assert "scales per group of 64 weights." in card.render(record_)


@pytest.mark.parametrize("part, value, match", [
    ("sizes", {}, "the record lacks 'parameters'"), ("scores", [], "the record is damaged"),
    ("environment", {"packages": None}, "the record is damaged"),
    ("config", None, "the record is damaged"), ("validation_loss", "low", "the record is damaged"),
])  # fmt: skip
def test_a_record_that_lacks_something_is_refused(part: str, value: Any, match: str) -> None:
    broken = copy.deepcopy(made())
    broken[part] = value
    with pytest.raises(UserError, match=match):
        card.render(broken)


def test_the_command_prints_the_card_of_a_real_record(
    quick: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = execute(config_of([*quick, "method=ptq"]))
    capsys.readouterr()
    assert main(["card", str(path), "someone/toy"]) == 0
    printed = capsys.readouterr().out
    assert printed == card.render(record.read(path), "someone/toy") and str(tmp_path) not in printed
    assert main(["card", str(tmp_path / "none.json")]) == 2
    assert "not a readable record" in capsys.readouterr().err
