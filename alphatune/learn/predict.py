"""From a finished model to predictions on disk, and from those to scores.

Inputs are decoded in the same batches whoever decodes them: batches are dealt out to the processes of a run, and a
killed run continues with those that are not whole. So neither can change a prediction.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from alphatune import metrics
from alphatune.config import Config
from alphatune.data.example import Example
from alphatune.errors import UserError
from alphatune.learn import batches, ranks
from alphatune.learn.batches import Counts, Item
from alphatune.learn.decode import beam_search, cut_text
from alphatune.learn.partial import Partial
from alphatune.packed.linear import dense_weights
from alphatune.progress import Progress

PREDICTIONS = "predictions.jsonl"
REPORT = "report.json"


def predict(
    model: nn.Module, tokenizer: Any, examples: list[Example], config: Config, folder: Path, scratch: Path
) -> None:
    """Write predictions.jsonl (one line per input, in input order) and a report of what was cut to `folder`.

    Raises:
        UserError: another process could not do its share.
    """
    partial = Partial(scratch / PREDICTIONS, [e.id for e in examples])
    partial.read()
    ranks.words.say(ranks.DECODE)
    counts = share(model, tokenizer, examples, config, scratch)
    if failures := [told for told in ranks.words.gathered("") if told]:
        raise UserError(failures[0])
    lines = partial.read()
    with (folder / PREDICTIONS).open("w", encoding="utf-8") as out:
        for i in range(len(examples)):
            out.write(json.dumps(lines[i], ensure_ascii=False) + "\n")
    (folder / REPORT).write_text(json.dumps({"inputs": len(examples), "truncated_contexts": counts.truncated_contexts}))


def share(model: nn.Module, tokenizer: Any, examples: list[Example], config: Config, scratch: Path) -> Counts:
    """Decode this process's batches, as far as `scratch` does not hold them; what is cut of all inputs is returned."""
    counts, number, processes = Counts(), ranks.rank(), ranks.size()
    kept = Partial(scratch / PREDICTIONS, [e.id for e in examples])
    size = config.decode.batch_size
    predicted: Callable[..., Iterable[dict[str, Any]]] = _generated
    if config.task.kind == "classification":
        size, predicted = 4 * size, _classified
        items = [batches.classification_item(e, tokenizer, config.task, counts) for e in examples]
    else:
        items = [Item(batches.context_ids(e.text, tokenizer, config.task, counts), []) for e in examples]
    # longest first: the most memory is asked for at the start
    order = sorted(range(len(items)), key=lambda i: (-len(items[i].input_ids), i))
    mine = [order[start : start + size] for start in range(number * size, len(order), processes * size)]
    done = kept.seen()
    todo = [chosen for chosen in mine if not done >= set(chosen)]
    total, left = sum(map(len, mine)), sum(map(len, todo))
    with (
        dense_weights(model),
        (kept.part(number) if number else kept).adding() as add,
        Progress("decode", total, "input", config.runtime.progress, total - left) as progress,
    ):
        for chosen in todo:
            for i, line in zip(chosen, predicted(model, tokenizer, [items[i] for i in chosen], config), strict=True):
                add({"index": i, "id": examples[i].id} | line)
            progress.advance(len(chosen))
    return counts


def score(folder: Path, examples: list[Example], config: Config) -> dict[str, Any]:
    """Scores of the predictions in `folder`: {"values": {subset: {metric: {value, signature}}}, "absent": {...}}."""
    lines = [json.loads(line) for line in (folder / PREDICTIONS).open(encoding="utf-8")]
    predictions = [line["prediction"] for line in lines]
    subsets = [e.subset for e in examples] if config.task.subsets else None
    if config.task.kind == "classification":
        labels: list[Any] = [e.label for e in examples]
        result = metrics.score_labels(config.task.scores, predictions, labels, subsets=subsets)
    else:
        references = [list(e.targets) for e in examples]
        result = metrics.score(config.task.scores, predictions, references, subsets=subsets)
    values = {
        group: {name: {"value": s.value, "signature": s.signature} for name, s in scores.items()}
        for group, scores in result.values.items()
    }
    return {"values": values, "absent": result.absent}


def absent(folder: Path) -> str | None:
    """What the scores in `folder` lack, as text: metrics that this machine may have by now; None if they lack none."""
    names = json.loads((folder / "scores.json").read_text(encoding="utf-8"))["absent"]
    return f"lacks {', '.join(names)}" if names else None


def _generated(model: nn.Module, tokenizer: Any, items: list[Item], config: Config) -> Iterable[dict[str, Any]]:
    end, pad, prompts = batches.end_token(tokenizer), tokenizer.pad_token_id, [item.input_ids for item in items]
    for found in beam_search(model, prompts, config.decode, end_tokens=[end], pad_token=pad):
        text = cut_text(tokenizer.decode(found.tokens, skip_special_tokens=True), config.decode.stop_text)
        score = found.score if math.isfinite(found.score) else None  # every token was banned
        yield {"prediction": text, "score": score, "finished": found.finished}


@torch.inference_mode()
def _classified(model: nn.Module, tokenizer: Any, items: list[Item], config: Config) -> Iterable[dict[str, Any]]:
    batch = batches.collate(items, tokenizer.pad_token_id)
    batch.pop("labels")
    logits = model(**batches.to_device(batch, next(model.parameters()).device)).logits.float()
    return [{"prediction": p} for p in (logits.argmax(dim=-1) if config.task.labels else logits.squeeze(-1)).tolist()]
