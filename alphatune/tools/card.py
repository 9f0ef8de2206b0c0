"""The model card of a run: README.md for the folder that is uploaded, made from the run's record alone."""

from __future__ import annotations

import argparse
from typing import Any

import yaml

from alphatune.errors import UserError
from alphatune.run import record

_LABELS = ("classification", "regression")
_CLASSES = {"generation": "AutoModelForCausalLM", **dict.fromkeys(_LABELS, "AutoModelForSequenceClassification")}
_TASKS = {"generation": "text-generation", **dict.fromkeys(_LABELS, "text-classification")}
_PACKAGES = ("torch", "transformers", "peft")


def run(args: argparse.Namespace) -> int:
    """Print the card of the record that the command line names."""
    print(render(record.read(args.record), args.repository or "REPOSITORY"), end="")
    return 0


def render(
    made: dict[str, Any], repository: str = "REPOSITORY", kind: str | None = None, base: str | None = None
) -> str:
    """A model card with YAML front matter.

    Args:
        made: the record of a finished run.
        repository: hub id or folder that the card tells people to load.
        kind: what the folder holds: the "model", the task's "adapter" alone, or the quantised "base" before
            adaptation; None: the adapter where the method leaves one, else the model.
        base: hub id of the model that an adapter belongs to, or the name of its folder.

    Raises:
        UserError: the record lacks what a card must say.
    """
    try:
        kind = kind or kind_of(made)
        parts = [_front(made, kind, base), _about(made, kind, base), _loading(made, repository, kind, base)]
        parts += [] if kind == "base" else [_scores(made)]
        parts += [_sizes(made, kind), _origin(made, kind)]
    except KeyError as error:
        raise UserError(f"no model card: the record lacks {error}") from error
    except (TypeError, AttributeError, ValueError) as error:  # a value of another kind than a run writes
        raise UserError(f"no model card: the record is damaged: {error}") from error
    return "\n\n".join(parts) + "\n"


def kind_of(made: dict[str, Any]) -> str:
    """What a run's folder holds unless another thing is asked for: "adapter" or "model"."""
    return "adapter" if has_adapter(made) else "model"


def has_adapter(made: dict[str, Any]) -> bool:
    """Whether what the run trained is an adapter beside an untouched model."""
    method = made["config"]["method"]
    return method["train"] in ("scales", "lora") and method["quantize"] in ("given", "before", "never", "nf4")


def _front(made: dict[str, Any], kind: str, base: str | None) -> str:
    config, method = made["config"], made["config"]["method"]
    task, quant = config["task"], config["quant"]
    hub = _hub_base(made, kind, base)
    if kind == "base":
        values: dict[str, Any] = {
            "library_name": "transformers",
            **({"base_model": hub} if hub else {}),
            "tags": ["alphatune", quant["format"], f"{quant['q']}-bit"],
            "pipeline_tag": _TASKS[task["kind"]],
        }
        return _yaml(values)
    tags = ["alphatune", method["name"]]
    if _packed(made):
        tags += [quant["format"], f"{quant['q']}-bit"]
    names = sorted({metric for metrics in made["scores"].values() for metric in metrics})
    results = [
        {"type": metric, "name": f"{metric} ({group})", "value": round(score["value"], 4)}
        for group, metrics in made["scores"].items()
        for metric, score in metrics.items()
    ]
    values = {
        "library_name": "peft" if kind == "adapter" else "transformers",
        **({"base_model": hub} if hub else {}),  # a local model has no id that others could follow
        "tags": tags,
        "datasets": [task["name"]],
        "metrics": names,
        "pipeline_tag": _TASKS[task["kind"]],
    }
    if results:
        found = {
            "task": {"type": _TASKS[task["kind"]]},
            "dataset": {"type": task["name"], "name": task["name"], "split": task["evaluate_on"]},
            "metrics": results,
        }
        values["model-index"] = [{"name": _title(made, kind), "results": [found]}]
    return _yaml(values)


def _hub_base(made: dict[str, Any], kind: str, base: str | None) -> str | None:
    """The hub id that the folder's weights build on, if others can follow one: for an adapter that of its own base."""
    if kind == "adapter" and base is not None and "/" in base:
        return base
    if kind == "adapter" and _packed(made):
        return None  # the dense model is not what it belongs to
    hub: str | None = made["model"]["identity"].get("hub")
    return hub


def _yaml(values: dict[str, Any]) -> str:
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True).strip()}\n---"


def _about(made: dict[str, Any], kind: str, base: str | None) -> str:
    config, method = made["config"], made["config"]["method"]
    scales = {
        "first": "alpha_1 of every packed layer (AlphaTuning)",
        "all": "every alpha of every packed layer",
        "gain": "the step size of every packed layer (PEQA)",
    }[method["trainable"]]
    alone = kind == "adapter"
    what = {
        "scales": f"{'an adapter of scales' if alone else 'trained scales, merged'}: {scales}",
        "lora": f"low-rank matrices of rank {method['lora']['r']}" + ("" if alone else ", merged"),
        "weights": "a fully fine-tuned model",
        "nothing": "a model quantised without any training",
    }[method["train"]]
    origin = config["model"]["name_or_path"]
    lines = [f"# {_title(made, kind)}"]
    if kind == "base":
        lines.append(f"{origin}, quantised and not adapted: the base of adapters, such as {made['run_id']}'s.")
    else:
        lines.append(f"{made['label']}: {what}, from {origin}, for {config['task']['name']}.")
    if alone:
        lines.append(_belonging(made, base))
    if method["quantize"] != "never":
        lines.append(_codes(made, kind))
    return "\n\n".join(lines)


def _belonging(made: dict[str, Any], base: str | None) -> str:
    """What an adapter must be put on."""
    if base is not None:
        return f"It belongs to the model {base} and works on no other."
    if _packed(made):
        return "It belongs to the quantised model that its run started from (`alphatune package --as base`)."
    return f"It belongs to {made['config']['model']['name_or_path']}."


def _codes(made: dict[str, Any], kind: str) -> str:
    """How the linear layers are stored, or were before they became dense again."""
    if made["config"]["method"]["quantize"] == "nf4":
        return (
            "The linear layers inside the base's transformer blocks were frozen in NF4 codes while it trained: load "
            "the base with bitsandbytes, `BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4', "
            "bnb_4bit_use_double_quant=True)`."
        )
    quant = made["config"]["quant"]
    format_ = {"bcq": f"binary codes ({record.solver(made['config'])})", "uniform": "uniform codes"}[quant["format"]]
    group = f"group of {quant['group_size']} weights" if quant["group_size"] else "row"
    codes = f"{quant['q']}-bit {format_}, with one set of float32 scales per {group}"
    layers = f"The linear layers inside the {'base' if kind == 'adapter' else 'model'}'s transformer blocks"
    if _packed(made):
        return f"{layers} hold {codes}. Everything else is not quantised."
    return (
        f"{layers} were quantised to {codes}, and made dense again so that the low-rank part could be merged: the "
        "files hold dense float32 weights."
    )


def _loading(made: dict[str, Any], repository: str, kind: str, base: str | None) -> str:
    auto = _CLASSES[made["config"]["task"]["kind"]]
    tokenizer = repository if kind != "adapter" else base or made["config"]["model"]["name_or_path"]
    needs = (
        "import alphatune\nalphatune.register()  # teaches transformers and peft about packed layers\n"
        if _packed(made)
        else ""
    )
    return (
        "## Loading\n\n```python\n"
        f"{needs}from transformers import {auto}, AutoTokenizer\n\n"
        f'model = {auto}.from_pretrained("{repository}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{tokenizer}")\n```'
    )


def _scores(made: dict[str, Any]) -> str:
    rows = ["## Scores", ""]
    if made["scores"]:
        rows += ["| metric | subset | value | computed as |", "|---|---|---|---|"]
        rows += [
            f"| {metric} | {group} | {score['value']:.2f} | `{score['signature'].replace('|', ' ')}` |"
            for group, metrics in made["scores"].items()
            for metric, score in metrics.items()
        ]
        rows.append("")
    config, loss = made["config"], "No validation loss: the data has no validation examples."
    if made["validation_loss"] is not None:
        loss = f"Validation loss {made['validation_loss']:.4f} over {made['data']['validation']} examples."
    rows.append(
        f"n = {made['data']['test']} inputs of the {config['task']['evaluate_on']} split, one run, "
        f"seed {made['seed']}. {loss}"
    )
    absent = made.get("absent_metrics") or {}
    rows += [f"Not computed: {name} ({reason})." for name, reason in absent.items()]
    return "\n".join(rows)


def _sizes(made: dict[str, Any], kind: str) -> str:
    sizes = made["sizes"]
    rows = [
        ("parameters of the dense model", f"{sizes['parameters']:,}"),
        ("dense model, float32", _megabytes(sizes["dense_bytes"])),
    ]
    if kind == "model":
        rows.append(("this model", _megabytes(sizes["total_bytes"] if _packed(made) else sizes["dense_bytes"])))
    elif kind == "adapter":
        rows.append(("the model in use", _megabytes(sizes["total_bytes"])))
    if kind != "base" and made["config"]["method"]["quantize"] != "frozen":  # that folder is not what the method stores
        rows.append(("stored per task", _megabytes(sizes["checkpoint_bytes"])))
    if kind != "base" and sizes["trainable_parameters"] is not None:
        rows.insert(1, ("parameters that were trained", f"{sizes['trainable_parameters']:,}"))
    return "\n".join(["## Sizes", "", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _origin(made: dict[str, Any], kind: str) -> str:
    config, environment = made["config"], made["environment"]
    hparams, packages = config["hparams"], environment["packages"]
    versions = ", ".join(f"{name} {packages[name]}" for name in _PACKAGES if packages.get(name))
    git = made.get("git") or {}
    changed = " with changes that were not committed" if git.get("dirty") else ""
    commit = f", alphatune at commit {git['commit'][:12]}{changed}" if git.get("commit") else ""
    epochs = f"{hparams['epochs']:g} epoch{'' if hparams['epochs'] == 1 else 's'}"
    lines = [
        "## Origin" if kind == "base" else "## Data, settings, versions", "",
        *([f"- Data: {config['task']['name']}, {made['data']['train']} training examples; "
           f"licence of the data: {config['task']['licence'] or 'not stated'}."] if kind != "base" else []),
        f"- Licence of the weights: that of {config['model']['name_or_path']}.",
        *([f"- Training: {hparams['optimizer']}, learning rate {hparams['learning_rate']:g}, "
           f"batch {hparams['batch_size']}, {epochs} ({hparams['provenance']})."]
          if config["method"]["train"] != "nothing" and kind != "base" else []),
        f"- Versions: Python {environment['python']}, {versions}; {environment['gpu'] or environment['cpu']}.",
        f"- Run: `{made['run_id']}`{commit}.",
    ]  # fmt: skip
    return "\n".join(lines)


def _title(made: dict[str, Any], kind: str) -> str:
    config = made["config"]
    bits = f", {config['quant']['q']} bits" if _packed(made) else ""
    if kind == "base":
        return f"{config['model']['name']}{bits}"
    return f"{config['model']['name']} for {config['task']['name']}: {made['label']}{bits}"


def _packed(made: dict[str, Any]) -> bool:
    """Whether the files hold packed layers: a LoRA over a coded W is merged after dequantisation."""
    return made["config"]["method"]["quantize"] in ("given", "before", "adapted", "merged")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"
