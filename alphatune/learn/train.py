"""Adaptation through `transformers.Trainer`, with the few things that differ from its defaults.

Differences: the loss is computed where labels are (`loss.py`), batches are bucketed by length and laid out for the
whole run, weight decay acts on every trained parameter (the reference recipe is decoupled decay on all), and
checkpoints hold trained parameters only.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from alphatune.config import Config
from alphatune.errors import UserError
from alphatune.learn import batches, ranks, resume, shards
from alphatune.learn.batches import Item
from alphatune.learn.curves import Curves, Recorder, Shown
from alphatune.learn.loss import check_logits, classification_loss, language_loss, token_losses
from alphatune.progress import Progress

TRAINED = "trained.safetensors"
_VALIDATED = 16  # examples at once
log = logging.getLogger("alphatune")


def train(
    model: nn.Module,
    train_items: list[Item],
    validation_items: list[Item],
    config: Config,
    pad_token: int,
    scratch: Path,
    report: Callable[[int, dict[str, float]], None] | None = None,
    device: torch.device | None = None,
) -> Curves:
    """Train what requires a gradient; continue from `scratch` if a killed run left a checkpoint there.

    Args:
        model: on the device and changed in place; with `runtime.shard` it may be on the CPU, and is there afterwards,
            without its parameters but on the process that leads.
        validation_items: there may be none; there is then no validation curve.
        report: receives (step, losses) as they come, for a tracker.
        device: where to train; None: where the model is.

    Raises:
        UserError: the loss became NaN or infinite, or the model does to its logits what our loss does not know.
    """
    hp, tr = config.hparams, config.trainer
    _check_lengths(model, [*train_items, *validation_items])
    if ranks.rank() == 0:
        ranks.words.say(ranks.TRAIN)
    if config.task.kind == "generation" and not config.runtime.shard:
        check_logits(model, train_items[0].input_ids)
    steps = tr.max_steps or batches.steps_of(len(train_items), hp.batch_size, hp.epochs)
    every = max(1, steps // tr.evals)
    saving = tr.saves > 0 and steps > tr.saves
    device = device or next(model.parameters()).device
    arguments = TrainingArguments(
        output_dir=str(scratch),
        max_steps=steps,
        per_device_train_batch_size=max(1, hp.batch_size // ranks.size()),
        learning_rate=hp.learning_rate,
        weight_decay=hp.weight_decay,
        warmup_steps=hp.warmup_steps,
        lr_scheduler_type="linear",
        optim="adamw_torch" if hp.optimizer == "adamw" else "adafactor",
        adam_beta1=hp.adam_beta1,
        adam_beta2=hp.adam_beta2,
        adam_epsilon=hp.adam_epsilon,
        max_grad_norm=hp.max_grad_norm,
        bf16=tr.precision == "bfloat16",
        activation_checkpointing=tr.gradient_checkpointing,
        logging_steps=every,
        eval_strategy="steps" if validation_items else "no",
        eval_steps=every,
        save_strategy="steps" if saving else "no",
        # at points of the curve only: the training loss since the last point is not in a checkpoint
        save_steps=every * max(1, round(tr.evals / (tr.saves + 1))) if saving else steps,
        seed=config.seed,
        data_seed=config.seed,
        use_cpu=device.type == "cpu",
        report_to=[],
        disable_tqdm=True,  # one bar of ours instead of the Trainer's several
        remove_unused_columns=False,
        dataloader_pin_memory=device.type == "cuda",
        logging_nan_inf_filter=False,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # more GPUs are for more processes, not for DataParallel
    curves = Curves()
    trainer = _Trainer(
        model=model,
        args=arguments,
        train_dataset=train_items,
        eval_dataset=validation_items,
        data_collator=partial(batches.collate, pad_token=pad_token),
        callbacks=[Recorder(curves, report), *([resume.Sealing(scratch)] if ranks.rank() == 0 else [])],
    )
    trainer.setup(config, shards.cut(model, device) if config.runtime.shard else None)
    # the Trainer's own log lines would repeat what the bar and the curves say
    trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
    checkpoint = ranks.words.agreed(lambda: str(resume.newest(scratch) or ""))
    done = int(checkpoint.rsplit("-", 1)[-1]) if checkpoint else 0
    if checkpoint:
        log.info("adapt: continuing from step %d", done)
    with Progress("adapt", steps, "step", config.runtime.progress, done) as progress:
        trainer.add_callback(Shown(progress))
        trainer.train(resume_from_checkpoint=checkpoint or None)
    if config.runtime.shard:
        shards.join(model)
    model.eval()
    last = curves.train[-1][1] if curves.train else 0.0
    if not math.isfinite(last):
        raise UserError(f"hparams.learning_rate={hp.learning_rate:g}: the training loss became {last}; try a lower one")
    return curves


def save_trained(model: nn.Module, path: Path) -> None:
    """Write the trained parameters, by name, as safetensors."""
    save_file(trained_parameters(model), path)


def trained_parameters(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that require a gradient, by name, on the CPU; of a model in parts, on the leader's."""
    return {n: shards.whole(p) for n, p in model.named_parameters() if p.requires_grad}


def load_trained(model: nn.Module, path: Path) -> None:
    """Put trained parameters back into a model prepared the same way.

    Raises:
        ValueError: the file's names are not those the model trains.
    """
    tensors = load_file(path)
    wanted = {n: p for n, p in model.named_parameters() if p.requires_grad}
    if tensors.keys() != wanted.keys():
        odd = sorted(tensors.keys() ^ wanted.keys())
        raise ValueError(f"{path.name} does not belong to this model: {len(odd)} names differ, first {odd[0]}")
    with torch.no_grad():
        for name, parameter in wanted.items():
            shards.fill(parameter, tensors[name])


def _check_lengths(model: nn.Module, items: list[Item]) -> None:
    limit = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    longest = max(len(item.input_ids) for item in items)
    if limit is not None and longest > limit:
        raise UserError(
            f"a sequence of {longest} tokens does not fit the model's {limit} positions; "
            "lower task.max_context or task.max_target"
        )


class _Trainer(Trainer):
    """`Trainer` with our loss, batches, evaluation and checkpoints."""

    def setup(self, config: Config, root: nn.Module | None) -> None:
        """`root`: what runs in the model's place, where that is in parts."""
        self.config, self.root = config, root
        self.loss_of = classification_loss if config.task.kind == "classification" else language_loss
        self.model_accepts_loss_kwargs = False  # ours is a mean over the batch, already scaled

    def compute_loss(  # type: ignore[override]
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        smoothing = self.config.hparams.label_smoothing
        with self.accelerator.autocast():  # which else only the model's own forward is wrapped in
            return self._loss(model, inputs, smoothing)

    def _loss(self, model: nn.Module, inputs: dict[str, Any], smoothing: float) -> Tensor:
        if ranks.is_parallel(model):
            ranks.reseed(self.state.global_step, self.args.seed)
            return model(self.loss_of, inputs, smoothing)
        return self.loss_of(model, inputs, smoothing)

    def _wrap_model(self, model: nn.Module, training: bool = True, dataloader: Any = None) -> nn.Module:
        if not torch.distributed.is_initialized() or not training or ranks.is_parallel(model):
            return super()._wrap_model(model, training, dataloader)
        self.accelerator.prepare_model(model, evaluation_mode=True)  # its precision only: the loss is what is wrapped
        return self.root or ranks.parallel(model)

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        pass  # it is there, or its parts go there

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        made = super().create_optimizer(model)
        if self.root is not None:
            shards.keep_whole(made)
        return made

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if ranks.rank() == 0:
            super()._save_checkpoint(model, trial)
        else:
            self.store_flos()  # a sum over all processes, which the first one makes when it saves
            if self.root is not None:  # so are, in this order, the whole tensors
                trained_parameters(self.model)  # type: ignore[arg-type]
                self.optimizer.state_dict()  # type: ignore[union-attr]

    def get_train_dataloader(self) -> DataLoader:
        lengths = [len(item.input_ids) for item in self.train_dataset]  # type: ignore[union-attr]
        sampler = batches.BucketedBatches(lengths, self.config.hparams.batch_size, self.args.max_steps, self.args.seed)
        whole: Any = self.data_collator
        return DataLoader(self.train_dataset, batch_sampler=sampler, collate_fn=ranks.shared(whole))  # type: ignore

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        return [name for name, _ in model.named_parameters()]

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:  # type: ignore[override]
        model: Any = self.root or self.model
        items: Any = self.eval_dataset
        training = model.training
        model.eval()
        with self.accelerator.autocast():
            loss = {"eval_loss": validation_loss(model, items, self.config, self.data_collator, shared=True)}
        model.train(training)
        self.log(loss)
        # or the Trainer would evaluate the last step again at the end of the epoch
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, loss)
        return loss

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(str(output_dir or self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        model: Any = self.model
        save_trained(model, folder / TRAINED)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        target: Any = model or self.model
        load_trained(target, Path(resume_from_checkpoint) / TRAINED)


@torch.no_grad()
def validation_loss(
    model: nn.Module, items: list[Item], config: Config, collate: Callable[..., Any], shared: bool = False
) -> float:
    """Mean loss over all label tokens (or examples) of `items`, without label smoothing, for a model in eval mode.

    Args:
        shared: every process calls this and takes its part of the batches; all get the sum that one process gets, to
            the last bit.

    Raises:
        UserError: it is no finite number.
    """
    device = next(model.parameters()).device
    number, processes = (ranks.rank(), ranks.size()) if shared else (0, 1)
    order = sorted(range(len(items)), key=lambda i: len(items[i].input_ids))
    starts, mine = range(0, len(order), _VALIDATED), []
    summed = _summed_over_examples if config.task.kind == "classification" else _summed_over_tokens
    rounds = -(-len(starts) // processes)
    for turn in range(rounds):  # a model in parts runs on all processes or on none: some repeat the last batch
        start = starts[min(turn * processes + number, len(starts) - 1)]
        batch = batches.to_device(collate([items[i] for i in order[start : start + _VALIDATED]]), device)
        mine.append(model(summed, batch) if ranks.is_parallel(model) else summed(model, batch))
    parts = [json.loads(part) for part in ranks.words.gathered(json.dumps(mine))] if shared else [mine]
    total, count = 0.0, 0
    for i in range(len(starts)):  # in the order of one process
        summed_here, counted_here = parts[i % processes][i // processes]
        total, count = total + summed_here, count + counted_here
    if not math.isfinite(total):
        cause = f"; try a lower hparams.learning_rate={config.hparams.learning_rate:g}"
        raise UserError(
            f"the model's loss on {len(items)} texts is {total}: its weights are too large or no numbers"
            f"{cause if config.method.train != 'nothing' else ''}"
        )
    return total / max(1, count)


def _summed_over_examples(model: nn.Module, batch: dict[str, Tensor]) -> tuple[float, int]:
    return float(classification_loss(model, batch)) * len(batch["labels"]), len(batch["labels"])


def _summed_over_tokens(model: nn.Module, batch: dict[str, Tensor]) -> tuple[float, int]:
    logits, labels = token_losses(model, batch)
    return float(nn.functional.cross_entropy(logits.float(), labels, reduction="sum")), len(labels)
