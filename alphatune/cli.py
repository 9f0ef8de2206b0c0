"""The `alphatune` command: quantise, generate, inspect, export and package checkpoints.

This file knows the arguments only. What they ask for is imported when it is needed: `--help` does not wait for torch.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

import alphatune
from alphatune import completion, ranges
from alphatune.errors import UserError
from alphatune.settings import FORMATS, BCQConfig, is_group_size
from alphatune.terminal import status_of

DTYPES = ("float32", "bfloat16", "float16")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns 0, 2 after a user's mistake, 130 when interrupted."""
    return status_of(lambda: _run(argv))


def parser() -> argparse.ArgumentParser:
    """The arguments of all subcommands."""
    top = _Parser(
        prog="alphatune", description="Quantise transformer checkpoints to binary codes and use them with adapters."
    )
    top.add_argument("--version", action="version", version=f"alphatune {alphatune.__version__}")
    top.add_argument("--print-completion", choices=completion.SHELLS, help="print a shell's completion script")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    _quantize(commands.add_parser("quantize", help="quantise a checkpoint"))
    _generate(commands.add_parser("generate", help="generate text with any number of adapters on one base"))
    _inspect(commands.add_parser("inspect", help="show what is in a checkpoint or an adapter"))
    _export(commands.add_parser("export", help="export a packed checkpoint for other programs"))
    card = commands.add_parser("card", help="print the model card of a run's record")
    card.add_argument("record", type=Path, metavar="RECORD", help="JSON file of a finished run")
    card.add_argument("repository", nargs="?", metavar="REPO", help="hub id or folder that the card tells to load")
    _package(commands.add_parser("package", help="write a run's weights and card as a folder to upload"))
    return top


def _quantize(to: argparse.ArgumentParser) -> None:
    to.add_argument("model", metavar="MODEL", help="folder, or hub id; safetensors only")
    to.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    to.add_argument("--revision", help="commit, branch or tag of a hub id")
    bits = ranges.field(BCQConfig, "bits")
    low, high = bits.metadata["range"]
    to.add_argument("--bits", type=int, choices=range(low, high + 1), default=bits.default, metavar="N",
                    help=f"{low} to {high} (default: {bits.default})")  # fmt: skip
    to.add_argument("--group-size", type=_group_size, metavar="N", help="weights per scale: a number, h or 0.5h of the "
                    "model's width (default: one row)")  # fmt: skip
    to.add_argument("--format", choices=FORMATS, default="bcq", help="binary codes or PEQA's uniform ones")
    to.add_argument("--solver", choices=ranges.choices(BCQConfig, "solver"), help="of binary codes (default: greedy)")
    to.add_argument("--offset", action="store_true", help="binary codes with an offset per group")
    to.add_argument("--calibration", type=Path, metavar="FILE", help="texts, one a line, for weighted, hessian, gptq")
    to.add_argument("--modules", metavar="A,B", help="names, or last parts of names, of the layers to quantise")
    to.add_argument("--task", choices=("causal-lm", "classification"), help="default: what the checkpoint was saved as")
    to.add_argument("--dtype", choices=DTYPES, default="float32", help="of what is not quantised (default: float32)")
    to.add_argument("--overwrite", action="store_true", help="replace a checkpoint in OUT")


def _generate(to: argparse.ArgumentParser) -> None:
    to.add_argument("base", metavar="BASE", help="folder or hub id of a packed (or plain) causal language model")
    to.add_argument("--revision", help="commit, branch or tag of a hub id")
    to.add_argument(
        "--adapter", action="append", default=[], metavar="DIR", help="an adapter's folder; may be repeated"
    )
    to.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="may be repeated")
    to.add_argument("--prompts", type=Path, metavar="FILE", help='one a line; FILE.jsonl: objects with "prompt"')
    to.add_argument("--beam", type=int, default=4, metavar="K", help="beams (default: 4; 1 is greedy)")
    to.add_argument("--max-new-tokens", type=int, default=64, metavar="N", help="default: 64")
    to.add_argument("--length-penalty", type=float, default=1.0, metavar="X", help="default: 1.0")
    to.add_argument(
        "--no-repeat-ngram", type=int, default=0, metavar="N", help="never repeat N tokens (default: 0, off)"
    )
    to.add_argument("--batch-size", type=int, default=16, metavar="N", help="prompts at once (default: 16)")
    to.add_argument("--sample", type=float, metavar="TEMPERATURE", help="draw tokens at random instead of beam search")
    to.add_argument("--seed", type=int, default=0, help="of --sample; beam search draws nothing (default: 0)")
    to.add_argument(
        "--dtype", choices=("auto", *DTYPES), default="auto", help="of what is not packed (default: as stored)"
    )
    to.add_argument("--json", action="store_true", help="print one JSON object with scores")


def _inspect(to: argparse.ArgumentParser) -> None:
    to.add_argument("dir", metavar="DIR", help="folder or hub id of a packed or plain checkpoint, or of an adapter")
    to.add_argument("--revision", help="commit, branch or tag of a hub id")
    to.add_argument("--headers-only", action="store_true", help="read no codes: no fingerprint")
    to.add_argument("--json", action="store_true", help="print one JSON object")


def _export(to: argparse.ArgumentParser) -> None:
    to.add_argument("dir", metavar="DIR", help="folder or hub id of a packed checkpoint")
    to.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    to.add_argument("--to", choices=("dense", "lut-gemm"), required=True, help="a plain checkpoint, or kernel tensors")
    to.add_argument("--revision", help="commit, branch or tag of a hub id")
    to.add_argument("--adapter", metavar="DIR", help="an adapter to merge first")
    to.add_argument("--dtype", choices=DTYPES, help="default: float32 (dense), float16 scales (lut-gemm)")
    to.add_argument("--overwrite", action="store_true", help="replace a checkpoint or an export in OUT")


def _package(to: argparse.ArgumentParser) -> None:
    to.add_argument("record", type=Path, metavar="RECORD", help="JSON file of a finished run")
    to.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    to.add_argument("--as", dest="kind", choices=("model", "adapter", "base"), default="model", help="the final model "
                    "(default), the trained adapter alone, or the quantised model before adaptation")  # fmt: skip
    to.add_argument("--base", metavar="BASE", help="hub id or folder of the model that an adapter belongs to")
    to.add_argument("--model", metavar="DIR", help="the dense backbone, if the run read it from a folder")
    to.add_argument("--artifacts", default="outputs/artifacts", metavar="DIR", help="where the run left its weights")
    to.add_argument("--repository", metavar="ID", help="the hub id that the card tells to load (default: OUT's name)")
    to.add_argument("--overwrite", action="store_true", help="replace a checkpoint in OUT")


def _run(argv: list[str] | None) -> int:
    top = parser()
    args = top.parse_args(argv)
    if args.print_completion:
        print(completion.script(top, args.print_completion), end="")
        return 0
    if args.command is None:
        raise UserError("no command given (see alphatune --help)")
    if args.command == "card":
        from alphatune import card

        return card.run(args)
    if args.command == "package":
        from alphatune import package

        return package.run(args)
    if args.command == "quantize":
        from alphatune import compression

        return compression.run(args)
    if args.command == "generate":
        _check_generate(args)
        from alphatune import generation

        return generation.run(args)
    if args.command == "inspect":
        from alphatune import inspection

        return inspection.run(args)
    from alphatune import export

    return export.run(args)


def _check_generate(args: argparse.Namespace) -> None:
    from alphatune.config import Decode

    for name in ("beam", "max_new_tokens", "length_penalty", "no_repeat_ngram", "batch_size"):
        setting, value = ranges.field(Decode, name), getattr(args, name)
        if not ranges.allows(setting, value):
            raise UserError(f"--{name.replace('_', '-')} {value}: must be {ranges.wanted(setting)}")
    if args.sample is not None and not 0 < args.sample < float("inf"):
        raise UserError("--sample: the temperature must be positive")


def _group_size(text: str) -> int | str:
    """A number of weights, or a multiple of the width as it stands."""
    size = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else text
    if not is_group_size(size):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of weights nor h or 0.5h")
    return size


if __name__ == "__main__":
    sys.exit(main())
