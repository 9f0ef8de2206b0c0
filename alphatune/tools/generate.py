"""`alphatune generate`: prompts in, texts out, with any number of adapters on one loaded base.

Beam search is `decode.py` under the rules of transformers' own, so texts are those of `model.generate(num_beams=K)`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PromptLearningConfig, TaskType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from alphatune.config import Decode
from alphatune.errors import UserError
from alphatune.hf import checkpoints, sealed
from alphatune.learn.decode import beam_search
from alphatune.packed.linear import dense_weights
from alphatune.progress import Progress


def run(args: argparse.Namespace) -> int:
    """Generate what the command line asks for.

    Raises:
        UserError: an argument or a file that is not allowed.
    """
    settings = Decode(
        beam=args.beam, max_new_tokens=args.max_new_tokens, length_penalty=args.length_penalty,
        no_repeat_ngram=args.no_repeat_ngram, batch_size=args.batch_size,
        no_repeat_scope="all", no_repeat_before_softmax=False, candidates="double", stopping="bound",
    )  # fmt: skip
    texts = prompts(args.prompt, args.prompts)
    source = checkpoints.local(args.base, args.revision)
    checkpoints.settings(source)  # says of an adapter that it is one
    folders = [checkpoints.local(name) for name in args.adapter]
    for folder in folders:
        _check_generates(folder)
    for folder in [source, *folders]:
        sealed.verify(folder)
    tokenizer = checkpoints.load_tokenizer(source)
    model = checkpoints.load(source, "causal-lm", args.dtype)
    tokens = _encode(texts, tokenizer, model, args.max_new_tokens)
    names: list[str] = []
    if folders:
        model, names = checkpoints.load_adapters(model, folders)
    results = []
    with Progress("generate", len(texts) * max(1, len(names)), "prompt") as progress:
        for name, milliseconds in _each(model, names):
            with dense_weights(model):  # rebuilt once per adapter, not once per token
                found = _outputs(model, tokenizer, tokens, settings, args, progress)
            outputs = [{"prompt": text, **output} for text, output in zip(texts, found, strict=True)]
            results.append({"adapter": name, "switch_ms": milliseconds, "outputs": outputs})
    if args.json:
        print(json.dumps({"base": args.base, "results": results}, ensure_ascii=False, indent=2))
    else:
        print("\n".join(_lines(results)))
    return 0


def _check_generates(folder: Path) -> None:
    """Refuse an adapter of another task, and prompts in front of the text, which are not decoded here."""
    settings = checkpoints.read_json(folder / checkpoints.ADAPTER_CONFIG)
    task, kind = settings.get("task_type"), settings.get("peft_type")
    if task not in (None, TaskType.CAUSAL_LM.value):
        raise UserError(f"{folder}: an adapter for {task}; needed is one of a causal language model")
    if isinstance(kind, str) and issubclass(PEFT_TYPE_TO_CONFIG_MAPPING.get(kind, object), PromptLearningConfig):  # type: ignore[call-overload]
        raise UserError(f"{folder}: {kind} puts prompts in front of the text; needed is an adapter of the layers")


def prompts(given: Sequence[str], file: Path | None) -> list[str]:
    """The prompts: those given, those in a file (one a line, or JSON objects with "prompt"), or those on stdin.

    Raises:
        UserError: there are none, or the file is not what its name says.
    """
    if given and file is not None:
        raise UserError("--prompt and --prompts exclude each other")
    if given:
        found = list(given)
    elif file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise UserError(f"--prompts {file}: cannot be read: {checkpoints.first_line(error)}") from error
        found = [_field(line, i, file) for i, line in enumerate(lines, 1) if line] if file.suffix == ".jsonl" else lines
    elif sys.stdin.isatty():
        raise UserError("no prompts: give --prompt TEXT, --prompts FILE, or lines on standard input")
    else:
        found = sys.stdin.read().splitlines()
    found = [text for text in found if text.strip()]
    if not found:
        raise UserError("there are no prompts, or only empty ones")
    return found


def _field(line: str, number: int, file: Path) -> str:
    try:
        text = json.loads(line)["prompt"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f'{file}, line {number}: not a JSON object with a "prompt"') from error
    if not isinstance(text, str):
        raise UserError(f'{file}, line {number}: "prompt" is no text')
    return text


def _encode(texts: list[str], tokenizer: Any, model: Any, new: int) -> list[list[int]]:
    limit = getattr(model.config, "max_position_embeddings", None)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    found = [list(tokenizer(text).input_ids) for text in texts]
    for text, ids in zip(texts, found, strict=True):
        if not ids:
            raise UserError(f"the tokenizer finds no token in {text[:40]!r}")
        if max(ids) >= vocabulary:
            raise UserError(
                f"the tokenizer gives token {max(ids)} in {text[:40]!r}, but the model has {vocabulary}: the tokenizer "
                "is that of another model"
            )
        if limit is not None and len(ids) + new > limit:
            raise UserError(
                f"the prompt {text[:40]!r} has {len(ids)} tokens: with --max-new-tokens {new} it exceeds the model's "
                f"{limit} positions"
            )
    return found


def _each(model: Any, names: list[str]) -> Iterator[tuple[str | None, float | None]]:
    """Each adapter in use, after the milliseconds that it took to switch to it; (None, None) without adapters."""
    if not names:
        yield None, None
    for name in names:
        start = time.perf_counter()
        model.set_adapter(name)
        yield name, round(1000 * (time.perf_counter() - start), 3)


def _outputs(
    model: Any, tokenizer: Any, tokens: list[list[int]], settings: Decode, args: argparse.Namespace, progress: Progress
) -> list[dict[str, Any]]:
    ends = model.generation_config.eos_token_id
    if ends is None:
        ends = tokenizer.eos_token_id
    ends = list(ends) if isinstance(ends, list | tuple) else [] if ends is None else [ends]
    pad = next((t for t in (tokenizer.pad_token_id, *ends) if t is not None), 0)
    if args.sample is not None:
        return _sample(model, tokenizer, tokens, (ends, pad), args, progress)
    found = beam_search(model, tokens, settings, end_tokens=ends, pad_token=pad, progress=progress.advance)
    return [
        {
            "text": tokenizer.decode(h.tokens, skip_special_tokens=True),
            "score": h.score if math.isfinite(h.score) else None,
            "finished": h.finished,
        }
        for h in found
    ]


@torch.inference_mode()
def _sample(
    model: Any, tokenizer: Any, tokens: list[list[int]], special: tuple[list[int], int], args: Any, progress: Progress
) -> list[dict[str, Any]]:
    """One random continuation of each prompt; prompts go one by one, so that a batch cannot change a draw."""
    outputs = []
    for i, ids in enumerate(tokens):
        torch.manual_seed(args.seed + i)
        given = torch.tensor([ids], device=model.device)
        with checkpoints.quiet():
            row = model.generate(
                input_ids=given, attention_mask=torch.ones_like(given), do_sample=True, num_beams=1,
                temperature=args.sample, max_new_tokens=args.max_new_tokens, pad_token_id=special[1],
                eos_token_id=special[0] or None, no_repeat_ngram_size=args.no_repeat_ngram,
            )[0].tolist()  # fmt: skip
        text = tokenizer.decode(row[len(ids) :], skip_special_tokens=True)
        outputs.append({"text": text, "score": None, "finished": row[-1] in special[0]})
        progress.advance()
    return outputs


def _lines(results: list[dict[str, Any]]) -> Iterator[str]:
    for result in results:
        if result["adapter"] is not None:
            yield f"== {result['adapter']} (switched in {result['switch_ms']:.2f} ms)"
        for output in result["outputs"]:
            yield f"> {output['prompt']}"
            yield output["text"]
