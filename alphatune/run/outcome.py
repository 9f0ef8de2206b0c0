"""What a run came to: its stages carried out, and what its record says of data, weights, sizes and scores."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from alphatune.learn import models
from alphatune.run import cuts, guessing
from alphatune.run.pipeline import Run
from alphatune.run.sizes import sizes
from alphatune.store import Artifact


def outcome(run: Run) -> dict[str, Any]:
    """Carry `run` out, as far as the store has not what it makes."""
    config, plan = run.config, run.plan
    if run.validation_examples and guessing.measured(config):
        run.evaluated()  # before decoding: what is worse than guessing is told at once
    scores: dict[str, Any] = {"values": {}, "absent": {}}
    if config.task.scores:  # a search for hyper-parameters needs the validation loss only
        scores = _kept(run.scored(), "scores")
    if plan.measured:
        for group, values in _kept(run.measured(), "scores").items():
            scores["values"].setdefault(group, {}).update(values)
    loss = None  # without validation examples there is none
    if run.validation_examples:
        loss = _kept(run.evaluated(), "loss")["validation_loss"]
    elif not config.task.metrics:
        run.final  # noqa: B018 - nothing is measured: the weights alone are made
    training = _kept(run.adapted()) if plan.adapted else {}
    decoding = _kept(run.decoded()) if config.task.scores else {}
    measuring = _kept(run.measured())["cut"] if plan.measured else {}
    cuts.tell(config.task, training.get("cut", {}), decoding, measuring)
    skeleton = models.skeleton(config.model, config.task.kind, len(config.task.labels))
    return {
        "validation_loss": loss,
        "scores": scores["values"],
        "absent_metrics": scores["absent"],
        "sizes": asdict(sizes(skeleton, config)),
        "curves": training.get("curves", {"train": [], "validation": []}),
        "quantization": _kept(run.codes()) if plan.requantized or plan.quantized else [],
        **({"quantized_start": asdict(run.quantized_start)} if run.quantized_start else {}),
        "model": {
            "identity": models.identity(config.model),
            "weights_sha256": models.weights_sha256(config, run.store),
        },
        "data": {
            "files": run.dataset.files,
            "notes": run.dataset.notes,
            **({"labels": run.dataset.labels} if run.dataset.labels else {}),
            "train": len(run.train_examples),
            "validation": len(run.validation_examples),
            "test": len(run.test_examples),
            "cut_in_training": training.get("cut", {}),
            "cut_in_decoding": decoding,
            **({"cut_in_measuring": measuring} if plan.measured else {}),
        },
        "provenance": config.hparams.provenance,
        "stages": {a.stage + ("" if a.reused else " (made)"): a.key for a in run.used},
        "timings": {name: round(seconds, 2) for name, seconds in run.timings.items()},
    }


def _kept(artifact: Artifact, name: str = "report") -> Any:
    return json.loads((artifact.path / f"{name}.json").read_text(encoding="utf-8"))
