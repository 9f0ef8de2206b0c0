"""From a command line to composed configs, through Hydra, with every mistake told in one line.

Hydra composes and sweeps; this file runs it, translates what it refuses, and lays the hyper-parameters that are
published for the cell between what is typed and the defaults.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from alphatune import groups, ranges
from alphatune.compose import composition, hparams, plain_yaml, sources
from alphatune.compose.parse import checked, parse
from alphatune.compose.quoting import quoted
from alphatune.compose.taskfile import expanded
from alphatune.config import Config, field_of
from alphatune.errors import UserError
from alphatune.store import unwritable

Job = Callable[[list[str]], None]
_ALL_KEYS = "python -m alphatune.run --help lists all groups and keys"
_HELP = """\
alphatune - one run of compression-aware adaptation: quantise, adapt, decode, score, record.
  python -m alphatune.run                                                    the embedded default, offline
  python -m alphatune.run task=webnlg model=gpt2-medium method=alphatuning quant.q=3
  python -m alphatune.run -m seed=0,1,2 method=full_ft,alphatuning           a sweep
  python -m alphatune.run --cfg job [...]                                    show what would run

Groups, and their choices (group=choice):

{groups}

Any value can be set by its key, e.g. quant.q=2 hparams.learning_rate=5e-3 seed=1:

{config}"""


@functools.cache
def register() -> None:
    """Make the schema known to Hydra."""
    ConfigStore.instance().store(name="schema", node=Config)


def compose(overrides: list[str]) -> DictConfig:
    """The composed, resolved config of one run.

    Raises:
        UserError: an override that Hydra or the schema refuses.
    """
    return _composed(overrides)[0]


def _composed(overrides: list[str]) -> tuple[DictConfig, sources.Sources]:
    """The config of one run, and where its values come from."""
    register()
    overrides = quoted(overrides)
    parsed = _parsed(overrides)
    _check_typed(parsed)
    given, typed = _stated(parsed)
    try:
        cfg, chosen = composition.by_hydra(overrides)
        found, fixed = sources.stated(chosen, given, typed)
        row = hparams.row(*(chosen.get(group, "") for group in ("task", "model", "method")))
        if row is not None:
            found |= row.lay(partial(_update, cfg), lambda: OmegaConf.select(cfg, "quant.q"), fixed)
        OmegaConf.resolve(cfg)
        return cfg, sources.recorded(found)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(_one_line(error, overrides)) from error


def _quickly(overrides: list[str]) -> tuple[Config, sources.Sources] | None:
    """The same without Hydra where all that is typed is plain and right; else None, and Hydra tells what is wrong."""
    register()
    try:
        parsed = [_parsed_once(override) for override in quoted(overrides)]
        _check_typed(parsed)
        config, chosen = composition.settings(parsed)
        found, fixed = sources.stated(chosen, *_stated(parsed))
        row = hparams.row(*(chosen.get(group, "") for group in ("task", "model", "method")))
        if row is not None:
            found |= row.lay(partial(composition.put, config), lambda: config.quant.q, fixed)
        return checked(config), sources.recorded(found)
    except (HydraException, OmegaConfBaseException, ValueError, UserError):
        return None


def _stated(parsed: list[Override]) -> tuple[set[str], dict[str, Any]]:
    """The groups that are typed, and the values by dotted key."""
    names = groups.names()
    given = {o.key_or_group for o in parsed if o.key_or_group in names}
    return given, groups.flat({o.key_or_group: o.value() for o in parsed if o.key_or_group not in given})


def _update(cfg: DictConfig, values: dict[str, Any]) -> None:
    for key, value in values.items():
        OmegaConf.update(cfg, key, value)


def config_of(overrides: list[str]) -> Config:
    """The checked, typed config of one run, its own copy. Raises UserError as `compose` and `parse` do."""
    return copy.deepcopy(_config_of(tuple(expanded(overrides)))[0])


def sources_of(overrides: list[str]) -> sources.Sources:
    """Dotted key -> where its value comes from, for all values of `sources.RECORDED`.

    "typed", "typed group decode=stock", "hparams/<file>: <model>, <method> (<provenance>)", "experiment=smoke" or
    "default". Raises UserError as `config_of` does.
    """
    return dict(_config_of(tuple(expanded(overrides)))[1])


@functools.lru_cache(maxsize=1024)
def _config_of(overrides: tuple[str, ...]) -> tuple[Config, sources.Sources]:
    if (found := _quickly(list(overrides))) is not None:
        return found
    cfg, origins = _composed(list(overrides))
    return parse(cfg), origins


def check(arguments: list[str]) -> None:
    """Compose and check what a command line asks for, every job of a sweep, before any of it starts.

    Raises:
        UserError: the first mistake found.
    """
    given = get_args_parser().parse_args(arguments)
    if given.help or given.hydra_help or given.shell_completion:
        return
    given_overrides = quoted(given.overrides, given.multirun)
    overrides = [o for o in given_overrides if not o.lstrip("+~").startswith("hydra")]
    if not given.cfg:
        _check_folder([o for o in given_overrides if o not in overrides], bool(given.multirun))
    jobs = [overrides]
    if given.multirun:
        parsed = _parsed(overrides)
        try:
            jobs = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
        except HydraException as error:
            raise UserError(_one_line(error, overrides)) from error
    for job in jobs:
        config_of(list(job))


def _check_folder(overrides: list[str], sweep: bool) -> None:
    """Refuse a working folder that Hydra could not make: it would print a traceback."""
    if not overrides and not sweep:
        return  # it is the present one, of conf/config.yaml
    key = "hydra.sweep.dir" if sweep else "hydra.run.dir"
    register()
    try:
        with hydra.initialize_config_dir(str(groups.folder()), version_base="1.3", job_name="alphatune"):
            cfg = hydra.compose("config", overrides=overrides, return_hydra_config=True)
    except HydraException as error:
        raise UserError(" ".join(str(error).split())) from error
    value = str(OmegaConf.to_container(cfg.hydra.sweep if sweep else cfg.hydra.run)["dir"])  # type: ignore
    fixed = value.partition("${")[0]  # what is before a date or the like, which only Hydra fills in
    if reason := unwritable(Path(fixed) if fixed == value else Path(f"{fixed}x").parent):
        raise UserError(f"{key}={value}: {reason}; give another folder")


def options() -> argparse.ArgumentParser:
    """Hydra's own options."""
    made: argparse.ArgumentParser = get_args_parser()
    return made


def is_sweep(arguments: list[str]) -> bool:
    """Whether the command line asks for a multirun."""
    return bool(get_args_parser().parse_args(arguments).multirun)


def in_process() -> bool:
    """Whether the jobs of this sweep run in this process (Hydra's basic launcher)."""
    return "BasicLauncher" in str(HydraConfig.get().launcher._target_)


def launch(arguments: list[str], job: Job) -> None:
    """Hand the command line to Hydra and call `job(overrides)` for every run. `--cfg job` shows the config instead.

    Raises:
        UserError: the config of a whole sweep is to be shown.
    """
    given = get_args_parser().parse_args(arguments)
    if given.multirun and given.cfg:
        raise UserError("--cfg shows the config of one run: leave out -m, and give one value for each setting")
    if given.cfg == "all":
        raise UserError("--cfg all: use --cfg job for the run's config, --cfg hydra for Hydra's own")
    if given.help:
        print(_HELP.format(groups=_listed_groups(), config=_shown(given.overrides, None)), end="")
        return
    if given.cfg == "job":
        print(_shown(given.overrides, given.package), end="")
        return
    register()

    @hydra.main(version_base="1.3", config_path=str(groups.folder()), config_name="config")
    def hydra_main(cfg: DictConfig) -> None:
        job(list(HydraConfig.get().overrides.task))

    with _argv([sys.argv[0], *quoted(arguments, is_sweep(arguments))]):
        hydra_main()


def _listed_groups() -> str:
    return "\n".join(f"{group}: {', '.join(groups.choices(group))}" for group in groups.names())


def _shown(overrides: list[str], package: str | None) -> str:
    """The config of one run as YAML: values, not the expressions that give them."""
    cfg = compose([o for o in overrides if not o.lstrip("+~").startswith("hydra")])
    part = cfg if package is None else OmegaConf.select(cfg, package)
    if part is None:
        raise UserError(f"--package {package}: no such key; keys of the config: {', '.join(map(str, cfg))}")
    head = "" if package is None else f"# @package {package}\n"
    return head + (OmegaConf.to_yaml(part) if OmegaConf.is_config(part) else f"{part}\n")


@contextlib.contextmanager
def _argv(arguments: list[str]):  # type: ignore[no-untyped-def]
    before = sys.argv
    sys.argv = arguments
    try:
        yield
    finally:
        sys.argv = before


def _check_typed(overrides: list[Override]) -> None:
    """Refuse what OmegaConf would turn into the right type, e.g. the text '3' into a number or 7 into true."""
    for override in overrides:
        if override.key_or_group == "hparams":
            raise UserError(f"{override.input_line}: looked up by task, model and method, so not a choice; set single "
                            "values, e.g. hparams.learning_rate=1e-3")  # fmt: skip
        if call := plain_yaml.call_in(str(override.input_line)):  # it could put the environment into records and pages
            key = str(override.key_or_group)
            raise UserError(f"{key}: ${{{call}:...}} is not read here: let the shell fill in values, {key}=$NAME")
        field = field_of(override.key_or_group)
        if field is None or override.is_delete() or override.is_sweep_override():
            continue
        value = override.value()
        if isinstance(value, str) and "${" in value:
            continue
        if not str(field.type).startswith(("str", "list", "dict")) and not ranges.allows(field, value):
            raise UserError(f"{str(override.input_line).lstrip('+')}: must be {ranges.wanted(field)}")


def _parsed(overrides: list[str]) -> list[Override]:
    try:
        return [_parsed_once(override) for override in overrides]
    except HydraException as error:
        raise UserError(_one_line(error, overrides)) from error


@functools.lru_cache(maxsize=4096)
def _parsed_once(override: str) -> Override:
    """One override, not to be changed; the rows of a table repeat most of theirs."""
    parsed: Override = OverridesParser.create().parse_overrides([override])[0]
    return parsed


def _one_line(error: Exception, overrides: list[str]) -> str:
    cause = error.__cause__
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group = error.missing_cfg_file.split("/")[0]
        return _no_such_choice(group, error.missing_cfg_file.removeprefix(f"{group}/"))
    if isinstance(error, OverrideParseException):
        key, equals, value = str(error.override).partition("=")
        if equals and value[:1] in ("[", "{"):
            return f"{error.override}: cannot be read; inside [] and {{}} unusual texts need quotes: \"{key}=['a, b']\""
        return f"{error.override}: not of the form key=value; {_ALL_KEYS}"
    if isinstance(error, ValueError) and not isinstance(error, HydraException):
        for override in overrides:
            key, _, value = override.partition("=")
            if key in groups.names() and value in ("null", ""):
                return _no_such_choice(key, value)
    if isinstance(error, ConfigCompositionException) and isinstance(cause, ValidationError):
        override = str(error).removeprefix("Error merging override ")
        wrong = field_of(override.lstrip("+").partition("=")[0])
        if wrong is not None:
            return f"{override.lstrip('+')}: must be {ranges.wanted(wrong)}"
    refused = re.match(r"Could not override '([^']+)'", str(error))
    if refused:
        key = refused[1]
        override = next((o for o in overrides if o.lstrip("+~").split("=")[0] == key), key)
        where = key.rpartition(".")[0]
        return f"{override}: no such key; keys of {where or 'the config'}: {', '.join(_keys(where))}"
    return " ".join(str(error).split())


def _no_such_choice(group: str, value: str) -> str:
    return f"{group}={value}: no such choice; must be one of: {', '.join(groups.choices(group))}"


def _keys(where: str) -> list[str]:
    import dataclasses

    node: object = Config()
    for part in where.split(".") if where else []:
        node = getattr(node, part, node)
    return [f.name for f in dataclasses.fields(node)] if dataclasses.is_dataclass(node) else groups.names()
