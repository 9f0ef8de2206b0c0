"""One run, readable top to bottom: data, backbone, quantise, adapt, quantise after, validate, decode, score, record.

Every stage asks the store first, so whatever another run has made already is reused and the log says so.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import random
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from alphatune.config import Config
from alphatune.data import own
from alphatune.data.example import Dataset, Example, limited
from alphatune.errors import UserError
from alphatune.learn import batches, methods, models, predict, ranks, residual, seeding, train
from alphatune.packed import disk, nf4
from alphatune.progress import Progress
from alphatune.run import given, guessing, identity, likelihood
from alphatune.run.identity import Plan, Spec
from alphatune.store import Artifact, Store
from alphatune.store.artifacts import Lack, Make

log = logging.getLogger("alphatune")
Report = Callable[[int, dict[str, float]], None]
ADAPTER = "adapter"  # of trained scales: a folder that peft loads; other methods have one file of parameters
_CALIBRATION_BATCH = 8  # texts; fixed, so that no setting of a run moves the last bits of its codes


class Run:
    """The stages of one run. Each is made on first use and only if something needs it."""

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        report: Report | None = None,
        store: Store | None = None,
    ) -> None:
        self.plan: Plan = identity.plan(config, models.identity(config.model), dataset.files)
        self.config = dataclasses.replace(config, task=own.resolved(config.task, dataset))
        self.dataset, self.report = dataset, report
        self.store = store or Store(config.runtime.artifacts)
        self.timings: dict[str, float] = {}
        self.used: list[Artifact] = []
        self.quantized_start: guessing.Start | None = None  # the model as quantisation left it, once it was measured

    # ---- data ----------------------------------------------------------------------------------------------------

    @cached_property
    def train_examples(self) -> list[Example]:
        """The training split; a limit takes the first n of a shuffle that does not depend on the run's seed."""
        examples, limit = list(self.dataset.train), self.config.data.train_limit
        if limit is not None:
            random.Random(0).shuffle(examples)
        return examples[:limit]

    @cached_property
    def test_examples(self) -> list[Example]:
        """What is decoded: with a limit, the first n of a fixed shuffle, so that every subset is represented."""
        return limited(self.dataset.split(self.config.task.evaluate_on), self.config.data.eval_limit)

    # ---- stages that make weights --------------------------------------------------------------------------------

    def codes(self) -> Artifact:
        """Codes and scales of the linear layers, made before or after adaptation as the method says."""
        spec = self.plan.requantized or self.plan.quantized
        assert spec is not None
        dense = self._adapted_model if self.config.method.quantize in ("adapted", "merged") else self._load

        def make(folder: Path) -> None:
            model, tokenizer = dense()
            calibration = None
            if identity.calibrated(self.config):
                model, calibration = model.to(self.device), self._calibration(tokenizer)
            disk.write(folder, model, self.config.quant, self.config.runtime.progress, calibration)

        return self._stage("quantize", spec, make)

    def _calibration(self, tokenizer: Any) -> list[dict[str, torch.Tensor]]:
        """Batches of the first training texts of a shuffle that does not depend on the run's seed."""
        shuffled = list(self.dataset.train)
        random.Random(0).shuffle(shuffled)
        examples = shuffled[: identity.calibration_examples(self.config)]
        items = batches.training_items(examples, tokenizer, self.config.task, batches.Counts())
        starts = range(0, len(items), _CALIBRATION_BATCH)
        return [batches.collate(items[i : i + _CALIBRATION_BATCH], int(tokenizer.pad_token_id)) for i in starts]

    def adapted(self) -> Artifact:
        """The trained parameters (scales as a peft adapter) and the loss curves."""
        spec = self.plan.adapted
        assert spec is not None

        def make(folder: Path) -> None:
            model, tokenizer = self.started()
            counts, validation = batches.Counts(), self._validation(tokenizer)
            if self.config.method.coded and validation and guessing.measured(self.config):
                loss = self._loss(model, tokenizer, validation[: guessing.TEXTS])
                self.quantized_start = guessing.start(loss, self.config, min(guessing.TEXTS, len(validation)))
            curves = self.trained(model, tokenizer, counts)
            if not methods.save_adapter(model, folder / ADAPTER):
                train.save_trained(model, folder / train.TRAINED)
            report = {"curves": asdict(curves), "cut": asdict(counts), "train_items": len(self.train_examples)}
            report |= {"quantized_start": asdict(self.quantized_start)} if self.quantized_start else {}
            (folder / "report.json").write_text(json.dumps(report, allow_nan=False))

        artifact = self._stage("adapt", spec, make)
        self.store.clear_scratch("adapt", spec)  # only now: a kill before this line repeats no training
        kept = json.loads((artifact.path / "report.json").read_text(encoding="utf-8"))
        if not self.quantized_start and "quantized_start" in kept:
            self.quantized_start = guessing.tell(guessing.Start(**kept["quantized_start"]), self.config)
        return artifact

    def started(self) -> tuple[nn.Module, Any]:
        """The model that training changes, as it is before the first step, and its tokenizer."""
        model, tokenizer = self.start()
        if self.config.method.lora.start == "residual" and self.config.method.train == "lora":
            residual.start(model, self._load()[0])
        return model, tokenizer

    def trained(self, model: nn.Module, tokenizer: Any, counts: batches.Counts) -> train.Curves:
        """Train `model` in place, by all processes of the run; `counts` receives what was cut."""
        assert self.plan.adapted is not None
        items = batches.training_items(self.train_examples, tokenizer, self.config.task, counts)
        scratch, pad = self.store.scratch("adapt", self.plan.adapted), int(tokenizer.pad_token_id)
        validation, report = self._validation(tokenizer), self.report
        return train.train(model, items, validation, self.config, pad, scratch, report, self.device)

    def _validation(self, tokenizer: Any) -> list[batches.Item]:
        return batches.training_items(self.validation_examples, tokenizer, self.config.task, batches.Counts())

    @cached_property
    def validation_examples(self) -> list[Example]:
        """The validation split; its limit takes the first n of a fixed shuffle, as that of the test split does."""
        return limited(self.dataset.validation, identity.validation_limit(self.config))

    # ---- stages that measure -------------------------------------------------------------------------------------

    def evaluated(self) -> Artifact:
        """The final model's validation loss: mean over target tokens, without label smoothing."""

        def make(folder: Path) -> None:
            self.final  # noqa: B018 - before the others are told: they read what it is made of
            ranks.words.say(ranks.VALIDATE)
            with Progress("validate", show=self.config.runtime.progress):
                loss = self.final_loss()
            (folder / "loss.json").write_text(json.dumps({"validation_loss": loss}, allow_nan=False))

        artifact = self._stage("evaluate", self.plan.evaluated, make)
        if (
            self.quantized_start is None
            and guessing.measured(self.config)
            and not (self.config.method.coded and self.plan.adapted)
        ):
            loss = json.loads((artifact.path / "loss.json").read_text(encoding="utf-8"))["validation_loss"]
            self.quantized_start = guessing.start(loss, self.config, len(self.validation_examples))
        return artifact

    def measured(self) -> Artifact:
        """scores.json: the final model's loss on the references of what is scored, for all and each subset."""
        assert self.plan.measured is not None

        def make(folder: Path) -> None:
            self.final  # noqa: B018 - as in evaluated
            ranks.words.say(ranks.MEASURE)
            with Progress("measure", show=self.config.runtime.progress):
                losses = self.reference_losses(counts := batches.Counts())
            (folder / "scores.json").write_text(json.dumps(losses, indent=1, allow_nan=False))
            (folder / "report.json").write_text(json.dumps({"cut": asdict(counts)}))

        return self._stage("measure", self.plan.measured, make)

    def reference_losses(self, counts: batches.Counts) -> likelihood.Values:
        """The losses that `measured` keeps, computed by all processes of the run; `counts` receives what was cut."""
        return likelihood.measure(*self.final, self.test_examples, self.config, counts)

    def final_loss(self) -> float:
        """The loss that `evaluated` keeps, computed by all processes of the run."""
        model, tokenizer = self.final
        return self._loss(model, tokenizer, self._validation(tokenizer), shared=True)

    def _loss(self, model: nn.Module, tokenizer: Any, items: list[batches.Item], shared: bool = False) -> float:
        collate = partial(batches.collate, pad_token=int(tokenizer.pad_token_id))
        return train.validation_loss(model.eval(), items, self.config, collate, shared)

    def decoded(self) -> Artifact:
        """predictions.jsonl: one line per input, in input order."""

        def make(folder: Path) -> None:
            model, tokenizer = self.final
            scratch = self.store.scratch("decode", self.plan.decoded)
            predict.predict(model, tokenizer, self.test_examples, self.config, folder, scratch)

        artifact = self._stage("decode", self.plan.decoded, make)
        self.store.clear_scratch("decode", self.plan.decoded)
        return artifact

    def scored(self) -> Artifact:
        """scores.json: per subset and metric, the value and its signature."""

        def make(folder: Path) -> None:
            predictions = self.decoded().path
            with Progress("score", show=self.config.runtime.progress):
                scores = predict.score(predictions, self.test_examples, self.config)
            (folder / "scores.json").write_text(json.dumps(scores, indent=1, allow_nan=False))

        return self._stage("score", self.plan.scored, make, predict.absent)

    # ---- models --------------------------------------------------------------------------------------------------

    def backbone(self) -> tuple[nn.Module, Any]:
        """The model as it was before this run did anything to it, on the device, and its tokenizer."""
        model, tokenizer = self._load()
        return model.to(self.device).eval(), tokenizer

    def _load(self) -> tuple[nn.Module, Any]:
        started = time.monotonic()
        model, tokenizer = models.load(self.config, self.store)
        self.timings["backbone"] = self.timings.get("backbone", 0.0) + time.monotonic() - started
        return model, tokenizer

    def base(self) -> tuple[nn.Module, Any]:
        """The model that adaptation starts from, packed if the method quantises before, and its tokenizer."""
        model, tokenizer = self._load()
        if self.plan.quantized is not None:
            disk.install(model, self.codes().path, self.config.quant)
        elif self.config.method.quantize == "nf4":
            nf4.install(model)
        given.check(model, self.config)
        return model, tokenizer

    def start(self) -> tuple[nn.Module, Any]:
        """The base on the device, with what the method trains in it."""
        model, tokenizer = self.base()
        seeding.seed(self.config.seed)  # what the method draws depends on the seed, not on what was drawn before
        model = methods.prepare(model, self.config)
        return (model if self.config.runtime.shard else model.to(self.device)), tokenizer  # or part by part, later

    def _adapted_model(self) -> tuple[nn.Module, Any]:
        """The model after adaptation, LoRA merged where the weights are dense."""
        if self.plan.adapted is None:
            return self.start()
        folder = self.adapted().path
        model, tokenizer = self.start()
        if not methods.load_adapter(model, folder / ADAPTER):
            train.load_trained(model, folder / train.TRAINED)
        return methods.merge(model), tokenizer

    @cached_property
    def final(self) -> tuple[nn.Module, Any]:
        """The model that is evaluated."""
        when = self.config.method.quantize
        if when in ("adapted", "merged"):
            codes = self.codes()
            model, tokenizer = self._adapted_model()
            disk.install(model, codes.path, self.config.quant)
        elif when == "frozen":
            # only W is coded; it is dequantised at inference so that the low-rank part can be merged (Table 2, note 2)
            model, tokenizer = self._load()
            codes = self.codes()
            disk.write_dense(model, codes.path, self.config.quant)
            model = methods.prepare(model, self.config)
            train.load_trained(model, self.adapted().path / train.TRAINED)
            model = methods.merge(model)
        else:
            model, tokenizer = self._adapted_model()
        return model.to(self.device).eval(), tokenizer

    @cached_property
    def device(self) -> torch.device:
        wanted = self.config.runtime.device
        if wanted == "cuda" and not torch.cuda.is_available():
            raise UserError("runtime.device=cuda: torch sees no GPU here; use auto or cpu")
        return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")

    def _stage(self, stage: str, spec: Spec, make: Make, lack: Lack | None = None) -> Artifact:
        started = time.monotonic()
        inner = sum(self.timings.values())

        def alone(folder: Path) -> None:
            with seeding.untouched():
                make(folder)

        artifact = self.store.get(stage, spec, alone, lack)
        spent = time.monotonic() - started - (sum(self.timings.values()) - inner)  # without the stages inside it
        if all(a.path != artifact.path for a in self.used):
            self.used.append(artifact)
            log.info("%-9s %s %s", stage, "reused" if artifact.reused else "made", artifact.key)
            self.timings[stage] = self.timings.get(stage, 0.0) + spent
        return artifact
