"""The loss on the test references: against log-probabilities one text at a time, and what it changes of a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from alphatune.compose.compose import config_of
from alphatune.config import Config
from alphatune.data.load import load
from alphatune.errors import UserError
from alphatune.learn import batches, train
from alphatune.run import likelihood, preflight, record
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
    measured = likelihood.measure(model, tokenizer, run.test_examples, run.config, batches.Counts())
    assert {group: values["loss"]["value"] for group, values in measured.items()} == pytest.approx(
        {group: -sum(found) / len(found) for group, found in logs.items()}, rel=1e-5
    )
    run.config.task.subsets = []
    assert list(likelihood.measure(model, tokenizer, run.test_examples, run.config, batches.Counts())) == ["all"]


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


def test_a_subset_called_all_is_not_the_mean_of_all(quick: list[str]) -> None:
    run = _run(config_of([*quick, "method=ptq", "quant.q=2", "task.metrics=[loss]", "task.subsets=[]"]))
    model, tokenizer = run.final
    halves = [dataclasses.replace(e, subset="all" if i % 2 else "news") for i, e in enumerate(run.test_examples)]
    whole, run.config.task.subsets = (
        likelihood.measure(model, tokenizer, halves, run.config, batches.Counts()),
        ["news"],
    )
    counts = batches.Counts()
    parted = likelihood.measure(model, tokenizer, halves, run.config, counts)
    assert list(parted) == ["all", "news"]
    assert parted["all"]["loss"]["value"] == pytest.approx(whole["all"]["loss"]["value"], rel=1e-6)
    assert counts.truncated_targets == sum(
        len(tokenizer(" " + t, add_special_tokens=False)["input_ids"]) > 64 for e in halves for t in e.targets
    )


def test_a_loss_that_is_no_number_is_one_line(quick: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "_summed_over_tokens", lambda model, batch: (float("nan"), 1))
    with pytest.raises(
        UserError, match=r"the model's loss on \d+ texts is nan: its weights are too large or no numbers$"
    ):
        execute(config_of([*quick, "method=ptq", "quant.q=5"]))  # that no other test has
    with pytest.raises(UserError, match=r"; try a lower hparams\.learning_rate=0\.01"):
        execute(config_of([*quick, "method=full_ft", "seed=77", "hparams.learning_rate=0.01", "trainer.max_steps=1"]))


def test_references_longer_than_the_positions_are_told_before_the_run(quick: list[str], tmp_path: Path) -> None:
    """And what is not decoded needs no room for new tokens."""
    rows = [f'{{"input": "a film {i}", "target": "good"}}' for i in range(8)]
    for name in ("train", "valid"):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    (tmp_path / "test.jsonl").write_text("\n".join([*rows[:-1], '{"input": "x", "target": "' + "word " * 300 + '"}']))
    call = [o for o in quick if not o.startswith("model.tiny")]
    call += ["task=own", "task.name=films", "task.kind=generation", "task.max_target=2000", "decode.max_new_tokens=300",
             *(f"data.{name}={tmp_path / f'{name}.jsonl'}" for name in ("train", "valid", "test"))]  # fmt: skip
    with pytest.raises(UserError, match=r"test split: \S+ takes \d+ tokens, the model has 256 positions"):
        execute(config_of([*call, "method=ptq", "task.metrics=[loss]"]))
    (tmp_path / "test.jsonl").write_text("\n".join(rows))
    with pytest.raises(UserError, match=r"\(decode.max_new_tokens=300 among them\)"):
        execute(config_of([*call, "method=ptq", "task.metrics=[bleu]"]))
    assert list(preflight.problems(_run(config_of([*call, "method=ptq", "task.metrics=[loss]"])))) == []


def test_an_unknown_metric_is_told_that_there_is_loss(quick: list[str]) -> None:
    with pytest.raises(UserError, match=r"task\.metrics: bleue is unknown: choose from .*, loss"):
        execute(config_of([*quick, "method=ptq", "task.metrics=[bleue,loss]"]))
