"""From a finished model to predictions on disk, and from those to scores.

Generation writes its predictions batch by batch to a scratch file, so a killed run continues where it stopped.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from alphatune import metrics
from alphatune.config import Config
from alphatune.data.example import Example
from alphatune.learn import batches
from alphatune.learn.batches import Counts
from alphatune.learn.decode import beam_search, cut_text
from alphatune.learn.partial import Add, Done, Partial
from alphatune.packed.linear import dense_weights
from alphatune.progress import Progress

PREDICTIONS = "predictions.jsonl"
REPORT = "report.json"


def predict(
    model: nn.Module, tokenizer: Any, examples: list[Example], config: Config, folder: Path, scratch: Path
) -> None:
    """Write predictions.jsonl (one line per input, in input order) and a report of what was cut to `folder`."""
    counts = Counts()
    partial = Partial(scratch / PREDICTIONS, [e.id for e in examples])
    done = partial.read()
    with dense_weights(model), partial.adding() as out:
        if config.task.kind == "classification":
            _classify(model, tokenizer, examples, config, counts, done, out)
        else:
            _generate(model, tokenizer, examples, config, counts, done, out)
    lines = partial.read()
    with (folder / PREDICTIONS).open("w", encoding="utf-8") as out:
        for i in range(len(examples)):
            out.write(json.dumps(lines[i], ensure_ascii=False) + "\n")
    (folder / REPORT).write_text(json.dumps({"inputs": len(examples), "truncated_contexts": counts.truncated_contexts}))


def score(folder: Path, examples: list[Example], config: Config) -> dict[str, Any]:
    """Scores of the predictions in `folder`: {"values": {subset: {metric: {value, signature}}}, "absent": {...}}."""
    lines = [json.loads(line) for line in (folder / PREDICTIONS).open(encoding="utf-8")]
    predictions = [line["prediction"] for line in lines]
    subsets = [e.subset for e in examples] if config.task.subsets else None
    if config.task.kind == "classification":
        labels: list[Any] = [e.label for e in examples]
        result = metrics.score_labels(config.task.metrics, predictions, labels, subsets=subsets)
    else:
        references = [list(e.targets) for e in examples]
        result = metrics.score(config.task.metrics, predictions, references, subsets=subsets)
    values = {
        group: {name: {"value": s.value, "signature": s.signature} for name, s in scores.items()}
        for group, scores in result.values.items()
    }
    return {"values": values, "absent": result.absent}


def _generate(
    model: nn.Module, tokenizer: Any, examples: list[Example], config: Config, counts: Counts, done: Done, out: Add
) -> None:
    prompts = [batches.context_ids(e.text, tokenizer, config.task, counts) for e in examples]
    end = batches.end_token(tokenizer)
    # longest first: the most memory is asked for at the start; the order cannot change a result
    order = sorted((i for i in range(len(prompts)) if i not in done), key=lambda i: (-len(prompts[i]), i))
    size = config.decode.batch_size
    with Progress("decode", len(examples), "input", config.runtime.progress, len(done)) as progress:
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            found = beam_search(
                model, [prompts[i] for i in chosen], config.decode, end_tokens=[end], pad_token=tokenizer.pad_token_id
            )
            for i, hypothesis in zip(chosen, found, strict=True):
                text = cut_text(tokenizer.decode(hypothesis.tokens, skip_special_tokens=True), config.decode.stop_text)
                score = hypothesis.score if math.isfinite(hypothesis.score) else None  # every token was banned
                line = {"index": i, "id": examples[i].id, "prediction": text, "score": score}
                out(line | {"finished": hypothesis.finished})
            progress.advance(len(chosen))


@torch.inference_mode()
def _classify(
    model: nn.Module, tokenizer: Any, examples: list[Example], config: Config, counts: Counts, done: Done, out: Add
) -> None:
    items = [batches.classification_item(e, tokenizer, config.task, counts) for e in examples]
    order = sorted((i for i in range(len(items)) if i not in done), key=lambda i: (-len(items[i].input_ids), i))
    device = next(model.parameters()).device
    size = 4 * config.decode.batch_size
    with Progress("classify", len(examples), "input", config.runtime.progress, len(done)) as progress:
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            batch = batches.collate([items[i] for i in chosen], tokenizer.pad_token_id)
            batch.pop("labels")
            logits = model(**batches.to_device(batch, device)).logits.float()
            predictions = (logits.argmax(dim=-1) if config.task.labels else logits.squeeze(-1)).tolist()
            for i, prediction in zip(chosen, predictions, strict=True):
                out({"index": i, "id": examples[i].id, "prediction": prediction})
            progress.advance(len(chosen))
