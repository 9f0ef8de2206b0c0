"""The `alphatune` command: which commands there are, and where each of them is.

A command is imported when it is asked for, so that `--help` does not wait for torch.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from importlib import import_module

import alphatune
from alphatune.errors import UserError
from alphatune.terminal import process, status_of

CHECKPOINT = "alphatune.tools.checkpoint"
COMMANDS = {  # name -> where it is, what it does
    "run": ("alphatune.tools.run", "carry out one run: quantise, adapt, decode, score, record"),
    "sweep": ("alphatune.tools.run", "one run for every combination of values (run -m)"),
    "search": ("alphatune.search.search", "search hyper-parameters over a sweep file, offline"),
    "table": ("alphatune.tools.table", "run what a table lacks, and render it beside the paper's numbers"),
    "figure": ("alphatune.tools.table", "the same for a figure"),
    "claims": ("alphatune.tools.claims", "decide the paper's claims by the records"),
    "report": ("alphatune.tools.report", "render all tables, figures and claims from the records"),
    "store": ("alphatune.tools.store", "list what the store holds, or remove what nothing needs"),
    "score": ("alphatune.tools.score", "score a file of texts or labels as the field does"),
    "forgetting": ("alphatune.tools.forgetting", "the loss on general text before and after adaptation"),
    "data": ("alphatune.data.fetch", "find or fetch a task's files"),
    "push": ("alphatune.tools.push", "send finished records to W&B"),
    "quantize": (CHECKPOINT, "quantise a checkpoint"),
    "generate": (CHECKPOINT, "generate text with any number of adapters on one base"),
    "inspect": (CHECKPOINT, "show what is in a checkpoint or an adapter"),
    "export": (CHECKPOINT, "export a packed checkpoint for other programs"),
    "package": (CHECKPOINT, "write a run's weights and card as a folder to upload"),
    "card": (CHECKPOINT, "print the model card of a run's record"),
    "completion": ("alphatune.tools.completion", "print a shell's completion script"),
}
EXTRAS = {  # extra of this package -> the modules that it brings
    "experiments": {
        "hydra", "omegaconf", "datasets", "pyarrow", "sacrebleu", "rouge_score", "nltk", "pyter", "pycocoevalcap",
        "sklearn", "scipy", "matplotlib", "filelock", "jinja2", "requests", "yaml",
    },
    "search": {"optuna"}, "qlora": {"bitsandbytes"}, "wandb": {"wandb"}, "tensorboard": {"tensorboard"}, "ray": {"ray"},
}  # fmt: skip
_INSTEAD = "leave torchrun away (table has --jobs N and --launcher slurm or ray)"
EXAMPLES = """\
examples:
  alphatune run                                      the embedded model, offline
  alphatune run task=webnlg model=gpt2-medium method=alphatuning quant.q=3
  alphatune table demo                               every method on the embedded model
  alphatune quantize path/to/gpt2 gpt2-3bit --bits 3

exit status: 0 done, 1 failed, 2 a mistake in what was asked, 3 nothing of it can run here, 130 interrupted
alphatune COMMAND --help says more."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit status."""
    # Before torch is loaded: threads that spin while they wait for one another stop each other where the machine has
    # other work. One that waits asleep costs a little on an idle one (docs/performance.md).
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given:
        return status_of(lambda: _wrong("no command given (see alphatune --help)"))
    name, rest = given[0], given[1:]
    if name in ("-h", "--help", "help"):
        print(usage())
        return 0
    if name == "--version":
        print(f"alphatune {alphatune.__version__}")
        return 0
    if name == "--print-completion":
        name = "completion"
    if name not in COMMANDS:
        return status_of(lambda: _wrong(f"{name}: no such command; must be one of: {', '.join(COMMANDS)}"))
    if process()[1] > 1 and name not in ("run", "sweep"):
        return status_of(lambda: _wrong(f"torchrun carries out one `alphatune run`, not {name}: {_INSTEAD}"))
    return _with_extras(name, lambda: _carry_out(name, rest))


def _carry_out(name: str, rest: list[str]) -> int:
    module = import_module(COMMANDS[name][0])
    if name == "sweep":
        rest = ["-m", *rest]
    if name == "figure" and rest and not rest[0].startswith("-"):
        rest = [f"figure{rest[0].removeprefix('figure')}", *rest[1:]]
    status: int = module.main(name, rest) if COMMANDS[name][0] == CHECKPOINT else module.main(rest)
    return status


def _with_extras(name: str, command: Callable[[], int]) -> int:
    """The status of a command; one that lacks a package of an extra says which to install."""
    try:
        return command()
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        extra = next((extra for extra, packages in EXTRAS.items() if package in packages), None)
        if extra is None:
            raise
        lacking = f"alphatune {name} needs the package {package}: pip install 'alphatune[{extra}]'"
        return status_of(lambda: _wrong(lacking))


def parsers() -> dict[str, tuple[argparse.ArgumentParser, str]]:
    """Every command's arguments and its line of help."""
    found = {}
    for name, (place, text) in COMMANDS.items():
        module = import_module(place)
        found[name] = (module.parser(name) if place == CHECKPOINT else module.parser(), text)
    return found


def usage() -> str:
    """What `alphatune --help` prints."""
    lines = [f"  {name:11} {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(["usage: alphatune COMMAND [...]", "", *lines, "", EXAMPLES])


def _wrong(what: str) -> int:
    raise UserError(what)


if __name__ == "__main__":
    sys.exit(main())
