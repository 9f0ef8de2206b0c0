"""Shell completion scripts, made from the argparse tree: `alphatune --print-completion bash`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

SHELLS = ("bash", "zsh", "fish")


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The completion script of a command with subcommands.

    Args:
        shell: "bash", "zsh" or "fish".
    """
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](parser)


def _subparsers(parser: argparse.ArgumentParser) -> dict[str, tuple[argparse.ArgumentParser, str]]:
    """Each subcommand's parser and one-line help."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            return {name: (sub, helps.get(name, "")) for name, sub in action.choices.items()}
    return {}


def _options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [a for a in parser._actions if a.option_strings and a.help != argparse.SUPPRESS]


def _name(parser: argparse.ArgumentParser) -> tuple[str, str]:
    """The command, and a shell function's name for it."""
    return parser.prog, "_" + re.sub(r"\W", "_", parser.prog)


def _with_choices(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """Option pattern and its allowed words."""
    for action in _options(parser):
        if action.choices:
            yield "|".join(action.option_strings), " ".join(map(str, action.choices))


def _words(parser: argparse.ArgumentParser) -> str:
    return " ".join(option for action in _options(parser) for option in action.option_strings)


def _bash(parser: argparse.ArgumentParser) -> str:
    """Words after an option with choices, options after a dash, files otherwise."""
    prog, function = _name(parser)
    commands = _subparsers(parser)
    cases = []
    for name, (sub, _) in commands.items():
        inner = [f'        {pattern}) COMPREPLY=($(compgen -W "{words}" -- "$word")); return ;;'
                 for pattern, words in _with_choices(sub)]  # fmt: skip
        cases += [f"    {name})", '      case "$before" in', *inner, "      esac", f'      options="{_words(sub)}" ;;']
    top = [f'    {pattern}) COMPREPLY=($(compgen -W "{words}" -- "$word")); return ;;'
           for pattern, words in _with_choices(parser)]  # fmt: skip
    return "\n".join([
        f"{function}() {{",
        '  local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" options=""',
        "  COMPREPLY=()",
        '  if [ "$COMP_CWORD" -eq 1 ]; then',
        f'    COMPREPLY=($(compgen -W "{" ".join(commands)} {_words(parser)}" -- "$word")); return',
        "  fi",
        '  case "$before" in', *top, "  esac",
        '  case "${COMP_WORDS[1]}" in', *cases, "  esac",
        '  if [[ "$word" == -* ]]; then COMPREPLY=($(compgen -W "$options" -- "$word")); return; fi',
        '  COMPREPLY=($(compgen -f -- "$word"))',
        "}",
        f"complete -o filenames -F {function} {prog}",
        "",
    ])  # fmt: skip


def _zsh(parser: argparse.ArgumentParser) -> str:
    prog, function = _name(parser)
    commands = _subparsers(parser)
    cases = []
    for name, (sub, _) in commands.items():
        cases += [f"    {name})", "      _arguments -S \\", *(f"        {spec} \\" for spec in _zsh_specs(sub)),
                  "        '*:file:_files' ;;"]  # fmt: skip
    listed = [f"'{name}:{_zsh_text(text)}'" for name, (_, text) in commands.items()]
    return "\n".join([
        f"#compdef {prog}",
        f"{function}() {{",
        "  local -a commands",
        f"  commands=({' '.join(listed)})",
        "  if (( CURRENT == 2 )); then",
        "    _describe command commands",
        "    _arguments \\", *(f"      {spec} \\" for spec in _zsh_specs(parser)), "      ''",
        "    return",
        "  fi",
        '  case "$words[2]" in', *cases, "  esac",
        "}",
        f"compdef {function} {prog}",
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


def _fish(parser: argparse.ArgumentParser) -> str:
    prog, _ = _name(parser)
    lines = []
    for name, (sub, text) in _subparsers(parser).items():
        lines.append(f"complete -c {prog} -n __fish_use_subcommand -a {name} -d '{_zsh_text(text)}'")
        where = f"-n '__fish_seen_subcommand_from {name}'"
        lines += [f"complete -c {prog} {where} {spec}" for spec in _fish_specs(sub)]
    lines += [f"complete -c {prog} -n __fish_use_subcommand {spec}" for spec in _fish_specs(parser)]
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
