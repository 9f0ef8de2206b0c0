"""The loss on the test references: against log-probabilities one text at a time, and what it changes of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from alphatune.compose.compose import config_of
from alphatune.config import Config
from alphatune.data.load import load
from alphatune.errors import UserError
from alphatune.run import likelihood, record
from alphatune.run.execute import execute
from alphatune.run.pipeline import Run


def _run(config: Config) -> Run:
    return Run(config, load(config.task, config.data))


def test_it_is_the_mean_over_the_tokens_of_every_reference(quick: list[str]) -> None:
    run = _run(config_of([*quick, "method=ptq", "quant.q=2", "data.eval_limit=12", "task.metrics=[loss]"]))
    model, tokenizer = run.final
    logs: dict[str, list[float]] = {"all": [], "seen": [], "unseen": []}
    with torch.inference_mode():
        for example in run.test_examples:
            context = [*tokenizer(example.text)["input_ids"], tokenizer.eos_token_id]
            for target in example.targets:
                ids = [*tokenizer(" " + target, add_special_tokens=False)["input_ids"][:64], tokenizer.eos_token_id]
                tokens = torch.tensor([context + ids])
                logits = model(tokens, attention_mask=torch.ones_like(tokens)).logits[0].double().log_softmax(-1)
                found = [float(logits[len(context) - 1 + i, token]) for i, token in enumerate(ids)]
                logs["all"] += found
                logs[example.subset] += found
    assert all(logs.values()) and any(len(e.targets) > 1 for e in run.test_examples)
    measured = likelihood.measure(model, tokenizer, run.test_examples, run.config)
    assert {group: values["loss"]["value"] for group, values in measured.items()} == pytest.approx(
        {group: -sum(found) / len(found) for group, found in logs.items()}, rel=1e-5
    )
    run.config.task.subsets = []
    assert list(likelihood.measure(model, tokenizer, run.test_examples, run.config)) == ["all"]


def test_a_run_that_asks_for_nothing_else_predicts_nothing(quick: list[str]) -> None:
    config = config_of([*quick, "method=ptq", "quant.q=2", "task.metrics=[loss]"])
    made = record.read(execute(config))
    assert list(made["scores"]["all"]) == ["loss"] and set(made["scores"]) == {"all", "seen", "unseen"}
    assert {name.split()[0] for name in made["stages"]} == {"quantize", "evaluate", "measure"}


def test_beside_scores_it_has_the_run_s_record_and_no_other_run_is_renamed(quick: list[str]) -> None:
    plain = [*quick, "method=ptq", "quant.q=2", "task.metrics=[bleu]"]
    both = [*plain[:-1], "task.metrics=[bleu,loss]"]
    made = record.read(execute(config_of(both)))
    assert set(made["scores"]["unseen"]) == {"bleu", "loss"}
    plans = [_run(config_of(call)).plan for call in (plain, both)]
    assert plans[0].scored == plans[1].scored and plans[0].measured is None
    assert plans[0].run_id != plans[1].run_id == made["run_id"]


def test_of_labels_it_is_the_mean_over_examples(quick: list[str], tmp_path: Path) -> None:
    rows = [f'{{"sentence1": "{"good" if i % 2 else "bad"} film {i}", "label": {i % 2}}}' for i in range(16)]
    for name in ("train", "valid"):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    own = ["task=own", "task.name=films", "task.kind=classification", "task.labels=[no,yes]",
           "task.evaluate_on=validation", f"data.train={tmp_path / 'train.jsonl'}",
           f"data.valid={tmp_path / 'valid.jsonl'}"]  # fmt: skip
    made = record.read(execute(config_of([*quick, *own, "method=ptq", "quant.q=2", "task.metrics=[accuracy,loss]"])))
    assert made["scores"]["all"]["loss"]["value"] == pytest.approx(made["validation_loss"])
    assert made["scores"]["all"]["loss"]["signature"].startswith("nats per example")


def test_an_unknown_metric_is_told_that_there_is_loss(quick: list[str]) -> None:
    with pytest.raises(UserError, match=r"task\.metrics: bleue is unknown: choose from .*, loss"):
        execute(config_of([*quick, "method=ptq", "task.metrics=[bleue,loss]"]))
