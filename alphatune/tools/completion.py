"""`alphatune completion SHELL`: completion scripts, made from the arguments of all commands."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from importlib import import_module

from alphatune.terminal import Parser, status_of

SHELLS = ("bash", "zsh", "fish")


Commands = dict[str, tuple[argparse.ArgumentParser, str]]  # name -> its arguments, its line of help
PROG = "alphatune"
_FUNCTION = "_alphatune"


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit status."""
    return status_of(lambda: _main(parser().parse_args(arguments)))


def parser() -> Parser:
    """The arguments of `alphatune completion`."""
    parser = Parser(
        "alphatune completion",
        "Print the completion script of a shell.",
        'eval "$(alphatune completion bash)"\nalphatune completion fish > ~/.config/fish/completions/alphatune.fish',
    )
    parser.add_argument("shell", choices=SHELLS)
    return parser


def _main(given: argparse.Namespace) -> int:
    commands: Commands = import_module("alphatune.__main__").parsers()
    print(script(commands, given.shell), end="")
    return 0


def script(commands: Commands, shell: str) -> str:
    """The completion script of all commands, for "bash", "zsh" or "fish"."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](commands)


def _options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [a for a in parser._actions if a.option_strings and a.help != argparse.SUPPRESS]


def _with_choices(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """Option pattern and its allowed words."""
    for action in _options(parser):
        if action.choices:
            yield "|".join(action.option_strings), " ".join(map(str, action.choices))


def _words(parser: argparse.ArgumentParser) -> str:
    return " ".join(option for action in _options(parser) for option in action.option_strings)


def _bash(commands: Commands) -> str:
    """Words after an option with choices, options after a dash, files otherwise."""
    cases = []
    for name, (sub, _) in commands.items():
        inner = [f'        {pattern}) COMPREPLY=($(compgen -W "{words}" -- "$word")); return ;;'
                 for pattern, words in _with_choices(sub)]  # fmt: skip
        cases += [f"    {name})", '      case "$before" in', *inner, "      esac", f'      options="{_words(sub)}" ;;']
    return "\n".join([
        f"{_FUNCTION}() {{",
        '  local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" options=""',
        "  COMPREPLY=()",
        '  if [ "$COMP_CWORD" -eq 1 ]; then',
        f'    COMPREPLY=($(compgen -W "{" ".join(commands)} --help --version" -- "$word")); return',
        "  fi",
        '  case "${COMP_WORDS[1]}" in', *cases, "  esac",
        '  if [[ "$word" == -* ]]; then COMPREPLY=($(compgen -W "$options" -- "$word")); return; fi',
        '  COMPREPLY=($(compgen -f -- "$word"))',
        "}",
        f"complete -o filenames -F {_FUNCTION} {PROG}",
        "",
    ])  # fmt: skip


def _zsh(commands: Commands) -> str:
    cases = []
    for name, (sub, _) in commands.items():
        cases += [f"    {name})", "      _arguments -S \\", *(f"        {spec} \\" for spec in _zsh_specs(sub)),
                  "        '*:file:_files' ;;"]  # fmt: skip
    listed = [f"'{name}:{_zsh_text(text)}'" for name, (_, text) in commands.items()]
    return "\n".join([
        f"#compdef {PROG}",
        f"{_FUNCTION}() {{",
        "  local -a commands",
        f"  commands=({' '.join(listed)})",
        "  if (( CURRENT == 2 )); then",
        "    _describe command commands",
        "    return",
        "  fi",
        '  case "$words[2]" in', *cases, "  esac",
        "}",
        f"compdef {_FUNCTION} {PROG}",
        "",
    ])  # fmt: skip


def _zsh_specs(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in _options(parser):
        text = _zsh_text(action.help or "")
        value = ""
        if action.choices:
            value = f":{action.dest}:({' '.join(map(str, action.choices))})"
        elif action.nargs != 0:
            value = f":{action.dest}:_files"
        for option in action.option_strings:
            yield f"'*{option}[{text}]{value}'"


def _zsh_text(text: str) -> str:
    """Without what zsh would read as its own."""
    return re.sub(r"[\[\]':\\%]", " ", text).strip()


def _fish(commands: Commands) -> str:
    lines = []
    for name, (sub, text) in commands.items():
        lines.append(f"complete -c {PROG} -n __fish_use_subcommand -a {name} -d '{_zsh_text(text)}'")
        where = f"-n '__fish_seen_subcommand_from {name}'"
        lines += [f"complete -c {PROG} {where} {spec}" for spec in _fish_specs(sub)]
    return "\n".join([*lines, ""])


def _fish_specs(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in _options(parser):
        names = " ".join(
            f"-l {o.removeprefix('--')}" if o.startswith("--") else f"-s {o[1:]}" for o in action.option_strings
        )
        value = (
            f" -x -a '{' '.join(map(str, action.choices))}'" if action.choices else "" if action.nargs == 0 else " -r"
        )
        yield f"{names}{value} -d '{_zsh_text(action.help or '')}'"
