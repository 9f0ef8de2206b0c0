"""`alphatune run`: its help, which does not wait for Hydra; the rest is `alphatune/run/execute.py`."""

from __future__ import annotations

import argparse

from alphatune import groups

HELP = """\
One run of compression-aware adaptation: quantise, adapt, decode, score, record.

usage: alphatune run [GROUP=CHOICE ...] [KEY=VALUE ...] [options]     (or python -m alphatune.run)

examples:
  alphatune run                                                    the embedded model, offline
  alphatune run task=webnlg model=gpt2-medium method=alphatuning quant.q=3
  alphatune run model.name_or_path=FOLDER quant.q=2 hparams.learning_rate=5e-3 seed=1
  alphatune run -m seed=0,1,2 method=full_ft,alphatuning           a sweep: every combination
  alphatune run --cfg job task=dart model=gpt2-large               show all values of a run, run nothing

groups and their choices:
{groups}

options (Hydra's):
  -m, --multirun    a run for every combination of the values with commas
  -c, --cfg job     show the composed config; with --package quant only that part
  --hydra-help      what else Hydra takes

Every key that `--cfg job` shows can be set. What is typed wins over everything; docs/architecture.md has the order."""


def main(arguments: list[str]) -> int:
    """The command line; returns its exit status."""
    if {"-h", "--help"} & set(arguments):
        print(usage())
        return 0
    from alphatune.run.execute import main as run

    return run(arguments)


def usage() -> str:
    """What `alphatune run --help` prints."""
    lines = [f"  {name:11} {', '.join(groups.choices(name))}" for name in groups.names() if name != "hparams"]
    return HELP.format(groups="\n".join(lines))


def parser() -> argparse.ArgumentParser:
    """Hydra's options; the other arguments are overrides such as quant.q=3."""
    from alphatune.compose import compose

    return compose.options()
