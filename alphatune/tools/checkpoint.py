"""The arguments of the commands on checkpoints: quantize, generate, inspect, export, package and card.

What they ask for is imported when it is needed: `--help` does not wait for torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from alphatune import ranges
from alphatune.config import Decode
from alphatune.errors import UserError
from alphatune.settings import FORMATS, BCQConfig, is_group_size
from alphatune.terminal import Parser, status_of

DTYPES = ("float32", "bfloat16", "float16")


def main(name: str, arguments: list[str]) -> int:
    """Run the command `name`; returns its exit status."""
    return status_of(lambda: _run(name, parser(name).parse_args(arguments)))


def parser(name: str) -> Parser:
    """The arguments of the command `name`."""
    fill, text, examples = _COMMANDS[name]
    made = Parser(f"alphatune {name}", text, examples)
    fill(made)
    return made


def _quantize(to: argparse.ArgumentParser) -> None:
    to.add_argument("model", metavar="MODEL", help="folder, or hub id, of a dense transformers model of any kind, "
                    "without an adapter; safetensors only")  # fmt: skip
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
    to.add_argument("--start", choices=ranges.choices(BCQConfig, "start"), help="of solvers that alternate")
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
    to.add_argument("dir", metavar="DIR", help="folder or hub id of a packed checkpoint, a model of any kind")
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


def _card(to: argparse.ArgumentParser) -> None:
    to.add_argument("record", type=Path, metavar="RECORD", help="JSON file of a finished run")
    to.add_argument("repository", nargs="?", metavar="REPO", help="hub id or folder that the card tells to load")


_COMMANDS: dict[str, tuple[Callable[[argparse.ArgumentParser], None], str, str]] = {
    "quantize": (
        _quantize,
        "Quantise a checkpoint to binary or uniform codes.",
        """
        alphatune quantize path/to/gpt2 gpt2-3bit --bits 3
        alphatune quantize path/to/gpt2 out --bits 2 --solver gptq --offset --calibration texts.txt
        """,
    ),
    "generate": (
        _generate,
        "Generate text with any number of adapters on one base.",
        """
        alphatune generate gpt2-3bit --prompt "The tower"
        alphatune generate gpt2-3bit --adapter task-a --adapter task-b --prompts inputs.txt --json
        """,
    ),
    "inspect": (_inspect, "Show what is in a checkpoint or an adapter.", "alphatune inspect gpt2-3bit"),
    "export": (_export, "Export a packed checkpoint for other programs.", "alphatune export gpt2-3bit out --to dense"),
    "package": (
        _package,
        "Write a run's weights and card as a folder to upload.",
        "alphatune package results/records/toy/tiny/alphatuning/RECORD.json out --as adapter",
    ),
    "card": (_card, "Print the model card of a run's record.", "alphatune card RECORD.json someone/model"),
}


def _run(name: str, args: argparse.Namespace) -> int:
    if name == "generate":
        _check_generate(args)
        from alphatune.tools import generate

        return generate.run(args)
    if name == "quantize":
        from alphatune.tools import quantize

        return quantize.run(args)
    if name == "inspect":
        from alphatune.tools import inspect

        return inspect.run(args)
    if name == "export":
        from alphatune.tools import export

        return export.run(args)
    if name == "package":
        from alphatune.tools import package

        return package.run(args)
    from alphatune.tools import card

    return card.run(args)


def _check_generate(args: argparse.Namespace) -> None:
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
