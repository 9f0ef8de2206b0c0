"""What is wrong with a backbone for a run: its files, its tokenizer, its shape. Known from config.json, the headers of
the weights, the tokenizer and a network without weights, so nothing large is read.
"""

from __future__ import annotations

import heapq
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from alphatune.config import LOSS, Config, Tiny
from alphatune.data.example import Example
from alphatune.errors import UserError
from alphatune.hf import checkpoints
from alphatune.learn import batches, embedded, methods, models
from alphatune.learn.embedded import TOKENIZER_DOCUMENTS
from alphatune.packed import walk
from alphatune.quant.grouping import Grouping
from alphatune.quant.solvers import check_span
from alphatune.run import given

_MEASURED = 64  # texts of a split that are tokenised to find the longest: those with the most characters


@dataclass(frozen=True)
class SplitTexts:
    """The examples that a run tokenises: to train, to validate, to decode."""

    train: Sequence[Example]
    validation: Sequence[Example]
    test: Sequence[Example]


def problems(config: Config, texts: SplitTexts) -> list[str]:
    """Everything that keeps the backbone from being used as the run wants, one sentence each with what to do."""
    with checkpoints.quiet():
        return _problems(config, texts)


def _problems(config: Config, texts: SplitTexts) -> list[str]:
    name = config.model.name_or_path
    folder = Path(name) if Path(name).is_dir() and name != models.TINY else None
    found: list[str] = []
    network: Any = None
    if folder is not None:
        try:
            settings = checkpoints.settings(folder)
        except UserError as error:  # nothing else can be told of such a folder
            return [str(error)]
        found += _packed(settings, folder, config)
    try:
        network = _network(config)
    except UserError as error:
        found.append(str(error))
    if network is not None:
        found += _layers(network, config)
    if folder is not None:
        found += _weights(folder, network)
    if name == models.TINY:  # its tokenizer is made with it, and fits; texts may be longer than its positions
        if (tokenizer := _of_the_package(config.model.tiny)) is not None:
            found += _lengths(tokenizer, network, config, texts)
    else:
        try:
            tokenizer = _tokenizer(config, folder)
        except UserError as error:
            return [*found, str(error)]
        faults = list(_tokens(tokenizer, network, config, texts))
        found += faults or _lengths(tokenizer, network, config, texts)
    return found


def _packed(settings: dict[str, Any], folder: Path, config: Config) -> Iterator[str]:
    if config.method.quantize == "given":
        yield from filter(None, [given.fault(settings.get("quantization_config"), config)])
    elif method := checkpoints.quant_method(settings):
        yield (
            f"{folder} is quantised already ({method}): give the dense checkpoint, or method.quantize=given, which "
            "takes its codes"
        )


def _network(config: Config) -> nn.Module:
    """The backbone without weights, if it is of a kind that the task can use.

    Raises:
        UserError: it is not, or there is no such architecture.
    """
    name, kind = _name(config), config.task.kind
    wants = f"task={config.task.name} needs"
    try:
        shape = models.shape(config.model)
        model_type = shape.model_type
        if getattr(shape, "is_encoder_decoder", False):
            raise UserError(f"{name}: {model_type} is an encoder-decoder; {wants} a decoder or an encoder alone")
        encoder = model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(shape, "is_decoder", False)
        if kind == "generation" and encoder:
            raise UserError(
                f"{name}: {model_type} is an encoder, which generates no text; {wants} a decoder, e.g. GPT-2"
            )
        network = models.skeleton(config.model, kind, len(config.task.labels))
    except checkpoints.FAILURES as error:
        if "Unrecognized configuration class" in str(error):
            head = checkpoints.TASKS["classification" if kind == "classification" else "causal-lm"]
            raise UserError(f"{name}: transformers has no {head} of {model_type}, which {wants}") from error
        raise UserError(f"{name}: describes no model: {checkpoints.first_line(error)}") from error
    if kind == "classification" and not any(map(methods.is_head, dict(network.named_parameters()))):
        raise UserError(
            f"{name}: the new head of {model_type} is none of {', '.join(methods.HEADS)}, so it would not train"
        )
    if kind == "generation":
        taken = inspect.signature(network.forward).parameters
        lacking = [p for p in ("position_ids", "logits_to_keep") if p not in taken and "kwargs" not in taken]
        lacking += [] if "past_key_values" in taken else ["past_key_values"]  # state-space models take it as no cache
        if lacking:
            raise UserError(f"{name}: {model_type} cannot be decoded here: its forward takes no {lacking[0]}")
    return network


def _layers(network: nn.Module, config: Config) -> list[str]:
    """Groups that do not fit a layer, low-rank adapters without a place."""
    method, found = config.method, []
    layers = walk.linear_layers(network)
    if method.quantize != "never" and not layers:
        found.append(f"{_name(config)}: has no linear layers inside repeated blocks: nothing to quantise")
    if method.codes:
        width = walk.model_width(network)
        shapes = {tuple(walk.weight_of(layer).shape) for layer in layers.values()}
        for rows, columns in sorted(shapes, key=lambda shape: (shape[1], shape[0])):
            try:
                grouping = Grouping.of(rows, columns, config.quant.group_size, width)
                check_span(grouping, config.quant.settings())
            except UserError as error:
                found.append(f"quant.{error}")
                break  # what fits the shortest row is named
    if method.train == "lora":
        try:
            if not methods.lora_targets(network, method.lora.targets):
                found.append(f"{_name(config)}: has no linear layers inside repeated blocks: no place for LoRA")
        except UserError as error:
            found.append(str(error))
    return found


def _weights(folder: Path, network: nn.Module | None) -> list[str]:
    """Weight files that are absent, cut off, or of another shape than config.json says. Reads headers only."""
    found, held = list[str](), dict[str, tuple[int, ...]]()
    files = checkpoints.weight_files(folder)
    whole = folder / "model.safetensors"
    for file in [whole] if whole in files else files:
        try:
            with safe_open(file, framework="pt") as opened:
                held |= {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118
        except FileNotFoundError:
            found.append(f"{folder} lacks {file.name}, which its index names: copy the whole checkpoint")
        except (SafetensorError, OSError) as error:
            found.append(f"{file}: damaged or cut off ({checkpoints.first_line(error)}): copy it again")
    if found or network is None:
        return found
    prefix = f"{getattr(network, 'base_model_prefix', '')}."
    wanted = {
        name: tuple(p.shape) for name, p in network.named_parameters() if not methods.is_head(name)
    }  # a new head has the task's shape, not the file's
    pairs = {name: held.get(name, held.get(name.removeprefix(prefix))) for name in wanted}
    if not any(pairs.values()):
        return [
            f"{folder}: the weights hold none of the names of {type(network).__name__}, which config.json describes"
        ]
    packed = {key.removesuffix("qweight") + "weight" for key in held if key.endswith(".qweight")}
    for name, shape in pairs.items():
        if name in packed or name.removeprefix(prefix) in packed:
            continue  # what stands in the place of a packed weight is none
        if shape not in (None, wanted[name]):
            return [f"{folder}: {name} has the shape {list(shape)}, by config.json it is {list(wanted[name])}: "
                    "one of the two belongs to another model"]  # fmt: skip
    return []


def _of_the_package(tiny: Tiny) -> Any:
    """The tokenizer of the package, if it is that of such a tiny model too: made from as many documents as there."""
    enough = tiny.steps * tiny.batch_size >= TOKENIZER_DOCUMENTS
    return checkpoints.load_tokenizer(embedded.FOLDER) if tiny.vocabulary == Tiny().vocabulary and enough else None


def _tokenizer(config: Config, folder: Path | None) -> Any:
    if folder is not None:
        return checkpoints.load_tokenizer(folder)
    name, revision = config.model.name_or_path, config.model.revision
    files = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt")
    here = any(isinstance(try_to_load_from_cache(name, file, revision=revision), str) for file in files)
    try:  # what is in the cache is not asked for again: without a network that takes long
        return AutoTokenizer.from_pretrained(name, revision=revision, local_files_only=here)
    except Exception as error:  # the Rust tokenizers raise bare exceptions
        raise UserError(f"{_name(config)}: the tokenizer cannot be loaded: {checkpoints.first_line(error)}") from error


def _tokens(tokenizer: Any, network: Any, config: Config, texts: SplitTexts) -> Iterator[str]:
    """Tokens that are lacking: of the texts, the special ones, the rows of the embedding."""
    name = _name(config)
    sample = [e.text for e in [*texts.train[:8], *texts.validation[:8], *texts.test[:8]] if e.text.strip()]
    ids = {i for text in sample for i in tokenizer(text, add_special_tokens=False)["input_ids"]}
    if sample and ids <= {tokenizer.unk_token_id}:
        yield f"{name}: its tokenizer knows no token of the texts: files of it are missing or belong to another model"
    if tokenizer.eos_token_id is None and config.task.kind == "generation":
        yield f"{name}: its tokenizer has no end token for texts: set eos_token in its tokenizer_config.json"
    if tokenizer.eos_token_id is None and tokenizer.pad_token_id is None and config.task.kind == "classification":
        yield f"{name}: its tokenizer has no pad token: set pad_token in its tokenizer_config.json"
    if network is None:
        return
    rows = network.get_input_embeddings().num_embeddings
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    # a special token that texts do not have may lie outside: some models share a tokenizer with larger ones
    used = {getattr(tokenizer, f"{what}_token_id") for what in ("bos", "eos", "pad", "cls", "sep", "unk")}
    outside = [(i, t) for t, i in tokenizer.get_vocab().items() if i >= rows and (i in used or i not in special)]
    if outside:
        last, token = max(outside)
        yield (
            f"{name}: its tokenizer has the token {token!r} with number {last}, but the embedding has {rows} rows: "
            "the tokenizer belongs to another model"
        )


def _lengths(tokenizer: Any, network: Any, config: Config, texts: SplitTexts) -> list[str]:
    """The first text of each use that is longer than the model's positions."""
    limit = positions(network) if network is not None else None
    if limit is None:
        return []
    task, new, counts = config.task, config.decode.max_new_tokens, batches.Counts()
    if task.kind == "classification":
        uses = {"train": texts.train, "validation": texts.validation, task.evaluate_on: texts.test}

        def length(e: Example) -> int:
            return len(batches.classification_item(e, tokenizer, task, counts).input_ids)

        return _longest(uses, length, limit, task.max_context, f"lower task.max_context={task.max_context}")

    def training(e: Example) -> int:
        return max((len(i.input_ids) for i in batches.training_items([e], tokenizer, task, counts)), default=0)

    def decoding(e: Example) -> int:
        return len(batches.context_ids(e.text, tokenizer, task, counts)) + new

    advice = f"lower task.max_context={task.max_context} or "
    read = {"train": texts.train, "validation": texts.validation}
    if LOSS in task.metrics:
        read[task.evaluate_on] = [*read.get(task.evaluate_on, []), *texts.test]
    decoded = {task.evaluate_on: texts.test} if task.scores else {}
    return [
        *_longest(read, training, limit, task.max_context + task.max_target + 2,
                  f"{advice}task.max_target={task.max_target}"),
        *_longest(decoded, decoding, limit, task.max_context + 1 + new, f"{advice}decode.max_new_tokens={new}",
                  f" (decode.max_new_tokens={new} among them)"),
    ]  # fmt: skip


def _longest(
    uses: dict[str, Sequence[Example]], length: Callable[[Example], int], limit: int, most: int, advice: str,
    told: str = "",
) -> list[str]:  # fmt: skip
    """The longest text of each split, if it takes more than `limit` tokens; `length` counts those of one."""
    if most <= limit:
        return []  # whatever the texts are
    found = []

    def size(e: Example) -> int:
        return len(e.text) + len(e.text_pair or "") + max(map(len, e.targets), default=0)

    for split, examples in uses.items():
        likely = heapq.nlargest(_MEASURED, examples, key=size)
        tokens, name = max(((length(e), e.id) for e in likely), default=(0, ""), key=lambda pair: pair[0])
        if tokens > limit:
            found.append(
                f"{split} split: {name} takes {tokens} tokens{told}, the model has {limit} positions: {advice}"
            )
    return found


def positions(network: nn.Module) -> int | None:
    """How many tokens a sequence may have; None: any number. RoBERTa and its like keep some positions for padding."""
    for name, module in network.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return module.num_embeddings - module.padding_idx - 1
    return getattr(getattr(network, "config", None), "max_position_embeddings", None)


def _name(config: Config) -> str:
    return (
        "model=tiny" if config.model.name_or_path == models.TINY else f"model.name_or_path={config.model.name_or_path}"
    )
