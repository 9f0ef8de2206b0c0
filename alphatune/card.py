"""The model card of a run: README.md for the folder that is uploaded, made from the run's record alone.

`python -m alphatune.card RECORD.json > README.md`
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from alphatune import record
from alphatune.errors import UserError

_CLASSES = {"generation": "AutoModelForCausalLM", "classification": "AutoModelForSequenceClassification"}
_TASKS = {"generation": "text-generation", "classification": "text-classification"}
_PACKAGES = ("torch", "transformers", "peft")


def render(made: dict[str, Any], repository: str = "REPOSITORY") -> str:
    """A model card with YAML front matter.

    Args:
        made: the record of a finished run.
        repository: hub id or folder that the card tells people to load.

    Raises:
        UserError: the record lacks what a card must say.
    """
    try:
        parts = [_front(made), _about(made), _loading(made, repository), _scores(made), _sizes(made), _origin(made)]
    except (KeyError, TypeError) as error:
        raise UserError(f"no model card: the record lacks {error}") from error
    return "\n\n".join(parts) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Print the card of the record named on the command line."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        if len(given) not in (1, 2):
            raise UserError("usage: python -m alphatune.card RECORD.json [REPOSITORY]")
        print(render(record.read(Path(given[0])), *given[1:]), end="")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _front(made: dict[str, Any]) -> str:
    config, method = made["config"], made["config"]["method"]
    task, quant = config["task"], config["quant"]
    hub = made["model"]["identity"].get("hub")
    tags = ["alphatune", method["name"]]
    if _quantised(made):
        tags += [quant["format"], f"{quant['q']}-bit"]
    names = sorted({metric for metrics in made["scores"].values() for metric in metrics})
    results = [
        {"type": metric, "name": f"{metric} ({group})", "value": round(score["value"], 4)}
        for group, metrics in made["scores"].items()
        for metric, score in metrics.items()
    ]
    values: dict[str, Any] = {
        "library_name": "peft" if _adapter(made) else "transformers",
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
        values["model-index"] = [{"name": _title(made), "results": [found]}]
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True).strip()}\n---"


def _about(made: dict[str, Any]) -> str:
    config, method = made["config"], made["config"]["method"]
    what = {
        "scales": {
            "first": "an adapter of scales: alpha_1 of every packed layer (AlphaTuning)",
            "all": "an adapter of scales: every alpha of every packed layer",
            "gain": "an adapter of scales: the step size of every packed layer (PEQA)",
        }[method["trainable"]],
        "lora": f"LoRA of rank {method['lora']['r']}",
        "weights": "a fully fine-tuned model",
        "nothing": "a model quantised without any training",
    }[method["train"]]
    lines = [
        f"# {_title(made)}",
        f"{made['label']}: {what}, from {config['model']['name_or_path']}, for {config['task']['name']}.",
    ]
    if _quantised(made):
        quant = config["quant"]
        group = quant["group_size"] or "one row"
        format_ = {"bcq": f"binary codes ({quant['solver']})", "uniform": "uniform codes"}[quant["format"]]
        lines.append(
            f"The linear layers inside the transformer blocks hold {quant['q']}-bit {format_}, with one set of float32 "
            f"scales per {group}{' of weights' if quant['group_size'] else ''}. Everything else is not quantised."
        )
    return "\n\n".join(lines)


def _loading(made: dict[str, Any], repository: str) -> str:
    auto = _CLASSES[made["config"]["task"]["kind"]]
    needs = "import alphatune  # teaches transformers and peft about packed layers\n" if _packed(made) else ""
    return (
        "## Loading\n\n```python\n"
        f"{needs}from transformers import {auto}, AutoTokenizer\n\n"
        f'model = {auto}.from_pretrained("{repository}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{made["config"]["model"]["name_or_path"]}")\n```'
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
    config = made["config"]
    rows.append(
        f"n = {made['data']['test']} inputs of the {config['task']['evaluate_on']} split, one run, "
        f"seed {made['seed']}. Validation loss {made['validation_loss']:.4f} "
        f"over {made['data']['validation']} examples."
    )
    absent = made.get("absent_metrics") or {}
    rows += [f"Not computed: {name} ({reason})." for name, reason in absent.items()]
    return "\n".join(rows)


def _sizes(made: dict[str, Any]) -> str:
    sizes = made["sizes"]
    rows = [
        ("parameters of the dense model", f"{sizes['parameters']:,}"),
        ("dense model, float32", _megabytes(sizes["dense_bytes"])),
        ("this model", _megabytes(sizes["total_bytes"])),
        ("stored per task", _megabytes(sizes["checkpoint_bytes"])),
    ]
    if sizes["trainable_parameters"] is not None:
        rows.insert(1, ("parameters that were trained", f"{sizes['trainable_parameters']:,}"))
    return "\n".join(["## Sizes", "", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _origin(made: dict[str, Any]) -> str:
    config, environment = made["config"], made["environment"]
    hparams, packages = config["hparams"], environment["packages"]
    versions = ", ".join(f"{name} {packages[name]}" for name in _PACKAGES if packages.get(name))
    commit = (made.get("git") or {}).get("commit")
    lines = [
        "## Data, settings, versions", "",
        f"- Data: {config['task']['name']}, {made['data']['train']} training examples; "
        f"licence of the data: {config['task']['licence'] or 'not stated'}.",
        f"- Licence of the weights: that of {config['model']['name_or_path']}.",
        *([f"- Training: {hparams['optimizer']}, learning rate {hparams['learning_rate']:g}, "
           f"batch {hparams['batch_size']}, {hparams['epochs']:g} epochs ({hparams['provenance']})."]
          if config["method"]["train"] != "nothing" else []),
        f"- Versions: Python {environment['python']}, {versions}; {environment['gpu'] or environment['cpu']}.",
        f"- Run: `{made['run_id']}`" + (f", alphatune at commit {commit[:12]}." if commit else "."),
    ]  # fmt: skip
    return "\n".join(lines)


def _title(made: dict[str, Any]) -> str:
    config = made["config"]
    bits = f", {config['quant']['q']} bits" if _quantised(made) else ""
    return f"{config['model']['name']} for {config['task']['name']}: {made['label']}{bits}"


def _quantised(made: dict[str, Any]) -> bool:
    return bool(made["config"]["method"]["quantize"] != "never")


def _packed(made: dict[str, Any]) -> bool:
    """Whether the files hold packed layers: a LoRA over a coded W is merged after dequantisation."""
    return made["config"]["method"]["quantize"] in ("before", "adapted", "merged")


def _adapter(made: dict[str, Any]) -> bool:
    method = made["config"]["method"]
    return method["train"] in ("scales", "lora") and method["quantize"] in ("before", "never")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"


if __name__ == "__main__":
    sys.exit(main())
