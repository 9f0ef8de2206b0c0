"""`python -m alphatune.search SWEEP.yaml`: the search of a W&B sweep file, here and offline, with Optuna.

A trial is a run: its record is read for the objective, and one that exists is not run again. Only finished trials are
kept, in an append-only journal, so a search that was killed takes up the very trial that it was in.
"""

from __future__ import annotations

import argparse
import logging
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from alphatune.compose import compose
from alphatune.config import Config
from alphatune.data.load import load as load_data
from alphatune.errors import UserError
from alphatune.learn import models
from alphatune.run import identity, record, track
from alphatune.search.sweep import SAMPLERS, Sweep, load
from alphatune.store import digest
from alphatune.terminal import Parser, log_to_terminal, status_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

log = logging.getLogger("alphatune")
Point = dict[str, Any]  # parameter -> value
_ASKS = 100  # suggestions that repeat a finished trial before a search counts as exhausted


def check(sweep: Sweep) -> Config:
    """Compose the sweep with every value of every parameter, one parameter at a time; the first config is returned.

    Raises:
        UserError: an override or a value is refused, or no run of this sweep yields the metric.
    """
    first = {p.key: p.examples[0] for p in sweep.parameters}
    others = [first | {p.key: value} for p in sweep.parameters for value in p.examples[1:]]
    config = compose.config_of(sweep.overrides(first))
    for point in others:
        compose.config_of(sweep.overrides(point))
    known = ["validation_loss", *(f"{m}/{g}" for m in config.task.metrics for g in ["all", *config.task.subsets])]
    if sweep.metric not in known:
        raise UserError(f"{sweep.name}: metric {sweep.metric}: no such number; must be one of: {', '.join(known)}")
    return config


def objective(content: dict[str, Any], metric: str) -> float:
    """The number of a record that a trial is judged by, named as dashboards name it.

    Raises:
        UserError: the record does not have it.
    """
    numbers = track.summary(content)
    if metric not in numbers:
        reason = content["absent_metrics"].get(metric.split("/")[0], f"it has {', '.join(numbers)}")
        raise UserError(f"the record has no {metric}: {reason}")
    return float(numbers[metric])


def open_study(sweep: Sweep, config: Config, storage: Path) -> Study:
    """The study of a sweep in a journal, made if it is not there. Anything that changes what its trials are - data,
    weights, code, the values of the sweep or of the config - makes another; finished runs are read from their records.

    Args:
        config: of the trial with the first value of each parameter: its run's name stands for all that trials share.

    Raises:
        UserError: Optuna is not installed, the data cannot be read, or the journal cannot be read or written.
    """
    optuna = _optuna()
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    first = identity.plan(config, models.identity(config.model), load_data(config.task, config.data).files).run_id
    parameters = [(p.key, p.examples, p.log, p.step) for p in sweep.parameters]
    key = digest([first, parameters, sweep.metric, sweep.maximize])[:10]
    try:
        storage.parent.mkdir(parents=True, exist_ok=True)
        _drop_torn_line(storage)
        journal = JournalStorage(JournalFileBackend(str(storage)))
        direction = "maximize" if sweep.maximize else "minimize"
        return optuna.create_study(
            study_name=f"{sweep.name}-{key}", storage=journal, direction=direction, load_if_exists=True
        )
    except OSError as error:
        raise UserError(f"{storage}: cannot be read or written: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{storage}: damaged; remove it, finished runs are read from their records") from error


def run(sweep: Sweep, study: Study, sampler: str, total: int) -> list[str]:
    """Run trials until `total` are finished or nothing is left. Returns a line for each that failed."""
    from optuna.trial import TrialState, create_trial

    from alphatune.run.execute import execute

    failed: dict[str, str] = {}
    distributions = {p.key: p.distribution() for p in sweep.parameters}
    while (number := len(finished(study)) + len(failed)) < total:
        point = _next(sweep, study, sampler, distributions, failed)
        if point is None:
            log.info("nothing is left to try")
            break
        given = sweep.overrides(point)
        log.info("\n[%d/%d] %s", number + 1, total, " ".join(given[len(sweep.fixed) :]))
        try:
            config = compose.config_of(given)
            content = record.read(execute(config, identity.unused(config, given), compose.sources_of(given)))
        except UserError as error:  # e.g. the loss became infinite: the other trials go on
            log.error("failed: %s", error)
            reason = " ".join(str(error).split())  # several problems are several lines
            failed[digest(point)] = f"{' '.join(given)}: {reason}"
            outcome: dict[str, Any] = {"state": TrialState.FAIL, "user_attrs": {"error": reason}}
        else:  # no number to judge by: the other trials would have none either
            outcome = {"value": objective(content, sweep.metric), "user_attrs": {"run": content["run_id"]}}
        study.add_trial(create_trial(params=point, distributions=distributions, **outcome))
    return list(failed.values())


def finished(study: Study) -> dict[str, FrozenTrial]:
    """The completed trials, one for each point; failed ones are not among them, so a second call tries them again."""
    return {digest(t.params): t for t in study.trials if t.value is not None}


def _next(
    sweep: Sweep, study: Study, sampler: str, distributions: dict[str, BaseDistribution], failed: dict[str, str]
) -> Point | None:
    """The next point, or None. It follows from the finished trials alone: after an interrupt it is the same again."""
    known = finished(study).keys() | failed.keys()
    suggestions = sweep.grid() if sampler == "grid" else _suggestions(study, sampler, distributions)
    return next((point for point in suggestions if digest(point) not in known), None)


def _suggestions(study: Study, sampler: str, distributions: dict[str, BaseDistribution]) -> Iterator[Point]:
    optuna = _optuna()
    past = study.trials
    kind = optuna.samplers.TPESampler if sampler == "tpe" else optuna.samplers.RandomSampler
    # in memory: a trial in the journal that was begun and never finished would say nothing to the next call
    draft = optuna.create_study(direction=study.direction, sampler=kind(seed=len(past)))
    draft.add_trials(past)
    for _ in range(_ASKS):
        yield draft.ask(distributions).params


def _drop_torn_line(storage: Path) -> None:
    """A process that was killed while it wrote leaves half a line, to which the next one would append."""
    from optuna.storages.journal import JournalFileSymlinkLock

    lock = JournalFileSymlinkLock(str(storage))  # what the backend locks with
    lock.acquire()
    try:
        with storage.open("a+b") as f:
            f.seek(0)
            f.truncate(f.read().rfind(b"\n") + 1)
    finally:
        lock.release()


def _optuna() -> ModuleType:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise UserError("Optuna is not installed; pip install 'alphatune[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces every new study
    return optuna


def report(sweep: Sweep, study: Study) -> str:
    """The trials, best first, and the commands that run the best one again and on the test split."""
    trials = sorted(finished(study).values(), key=lambda t: t.value or 0.0, reverse=sweep.maximize)
    keys = [p.key for p in sweep.parameters]
    rows = [[sweep.metric, *keys, "run"]]
    rows += [[f"{t.value:.4f}", *(str(t.params[k]) for k in keys), t.user_attrs["run"]] for t in trials]
    lost = {digest(t.params): t for t in study.trials if digest(t.params) not in finished(study)}
    rows += [["failed", *(str(t.params[k]) for k in keys), t.user_attrs["error"]] for t in lost.values()]
    widths = [max(len(row[i]) for row in rows) for i in range(len(keys) + 1)]
    lines = ["  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]) for row in rows]
    if trials:
        best = sweep.overrides(trials[0].params)
        lines += ["", f"best: {_command(best)}"]
        trial = ("task.evaluate_on=validation", "task.metrics=[]")
        test = [o for o in best if o not in trial and not o.startswith("seed=")]
        lines += [f"on the test split, five seeds: {_command(['-m', *test, 'seed=0,1,2,3,4'])}"]
    return "\n".join(lines)


def _command(arguments: list[str]) -> str:
    return shlex.join(["python", "-m", "alphatune.run", *arguments])


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit status."""
    log_to_terminal()
    kept = "interrupted: finished trials are kept; the same command continues"
    return status_of(lambda: _main(parser().parse_args(arguments)), kept)


def parser() -> Parser:
    """The arguments of `alphatune search`."""
    parser = Parser(
        "alphatune search",
        "Search hyper-parameters offline, with Optuna, over a W&B sweep file.",
        """
        alphatune search toy-tiny-alphatuning --plan
        alphatune search toy-tiny-alphatuning --set model.tiny.steps=100
        alphatune search my_sweep.yaml --sampler tpe --trials 20
        """,
    )
    parser.add_argument("sweep", help="a W&B sweep file, or the name of one of experiments/sweeps/")
    parser.add_argument("--trials", type=int, help="finished trials in all (default: the grid, or the file's run_cap)")
    parser.add_argument("--sampler", choices=sorted(SAMPLERS.values()), help="default: what the file's method says")
    parser.add_argument("--storage", type=Path, help="the journal (default: outputs/search/NAME.log)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an override for every trial")
    parser.add_argument("--plan", action="store_true", help="only print what would run")
    return parser


def _main(given: argparse.Namespace) -> int:
    sweep = load(given.sweep).with_fixed(given.set)
    sampler = given.sampler or SAMPLERS[sweep.method]
    points = sweep.grid() if sampler == "grid" else []
    trials = sweep.run_cap if given.trials is None else given.trials
    if (trials is None and not points) or (trials is not None and trials < 1):
        raise UserError("--trials N: how many trials are to be finished in all, a whole number from 1")
    total = min(n for n in (trials, len(points)) if n)
    config = check(sweep)
    storage = given.storage or Path("outputs/search") / f"{sweep.name}.log"
    study = open_study(sweep, config, storage) if storage.exists() or not given.plan else None
    done = finished(study) if study else {}
    left = max(0, total - len(done))
    print(f"{sweep.name}: {total} trials ({sampler}), {len(done)} finished, {left} to run; {storage}", flush=True)
    if given.plan:
        for point in points[:total]:
            state = f"{done[digest(point)].value:.4f}" if digest(point) in done else "to run"
            print(f"{state:8} {_command(sweep.overrides(point))}")
        return 0
    assert study is not None
    if left:
        _ready(config, sweep)
    failures = run(sweep, study, sampler, total)
    print("\n" + report(sweep, study))
    return 1 if failures else 0


def _ready(config: Config, sweep: Sweep) -> None:
    """Tell before the first trial what every trial would stumble over."""
    dataset = load_data(config.task, config.data, progress=config.runtime.progress)
    if sweep.metric == "validation_loss" and not dataset.validation:
        raise UserError(
            f"{sweep.name}: task={config.task.name} has no validation examples, so trials have no validation_loss"
        )
    if missing := models.missing(config.model, config.data.offline):
        raise UserError(missing)
