"""`alphatune run`: one run, or with -m a sweep of runs.

Composes and checks the config before anything heavy is imported, carries out the pipeline, writes the record.
"""

from __future__ import annotations

import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alphatune.compose import compose, sources
from alphatune.config import Config
from alphatune.errors import UserError
from alphatune.learn import models
from alphatune.run import identity, record, track
from alphatune.terminal import log_to_terminal, process

log = logging.getLogger("alphatune")


def execute(config: Config, warnings: list[str] | None = None, origins: dict[str, str] | None = None) -> Path:
    """Carry out one run and return the path of its record. A run that is recorded already is not run again.

    Args:
        config: the run.
        warnings: lines to log first.
        origins: where the config's values come from (`compose.sources_of`), for the record.

    Raises:
        UserError: data or weights are missing, or a setting does not fit them: all that `preflight` finds, at once.
    """
    from alphatune.data.load import load

    for warning in [*(warnings or []), *sources.announcements(config, origins or {})]:
        log.warning("%s", warning)
    if models.unpinned(config.model):
        log.warning("%s is not pinned: model.revision=COMMIT makes the run repeatable", config.model.name_or_path)
    weights = models.missing(config.model, config.data.offline)
    try:
        dataset = load(config.task, config.data, progress=config.runtime.progress)
    except UserError as error:
        raise UserError(f"{error}; also, {weights}" if weights else str(error)) from error
    if weights:
        raise UserError(f"{weights}; a local folder works as model.name_or_path=FOLDER, and model=tiny needs no files")
    started = datetime.now(UTC)
    plan = identity.plan(config, models.identity(config.model), dataset.files)
    path = record.path_of(config.runtime.records, plan.run_id)
    if path.exists() and not config.runtime.force and (made := _recorded(path, plan.run_id)) is not None:
        track.replay(config, made)
        log.info("%s is recorded already: %s (runtime.force=true runs it again)", plan.run_id, path)
        return path
    from alphatune.packed.product import looked_up
    from alphatune.run import preflight  # with them comes torch: a run that is recorded does not wait for it
    from alphatune.run.outcome import outcome
    from alphatune.run.pipeline import Run

    run = Run(config, dataset)
    for warning in preflight.check(run):
        log.warning("%s", warning)
    log.info("run %s", plan.run_id)
    _prepare_torch(config)

    tracker = track.start(config, plan.run_id, record.public_config(config))
    run.report = tracker.log
    try:
        result = outcome(run)
    except BaseException:
        tracker.finish({"status": "failed"})
        raise
    result = {
        "schema": record.SCHEMA,
        "run_id": plan.run_id,
        "status": "completed",
        "label": config.method.label or config.method.name,
        "seed": config.seed,
        "config": record.public_config(config),
        **({"sources": origins} if origins else {}),
        **{name: number for name, number in identity.numbers_of(config)._asdict().items() if number > 1},
        **result,
        "environment": record.environment() | {"lookups": looked_up()} | _processes(config),
        "git": record.git(),
        "peak_memory_bytes": record.peak_memory_bytes(),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    record.write(path, result)
    tracker.finish(track.summary(result), result["curves"])
    log.info("%s", _line(result))
    log.info("record: %s", path)
    return path


def _processes(config: Config) -> dict[str, Any]:
    """How many carried the run out, and whether the model was cut up among them; nothing for one."""
    number = process()[1]
    return {} if number == 1 else {"processes": number} | ({"shard": True} if config.runtime.shard else {})


def _recorded(path: Path, run_id: str) -> dict[str, Any] | None:
    """The record of this very run, or None, and why: what is damaged or of another run is made again."""
    try:
        made = record.whole(path)
    except UserError as error:
        log.warning("%s; making it again", error)
        return None
    if made["run_id"] != run_id:
        log.warning("%s is the record of another run, %s; making it again", path, made["run_id"])
        return None
    return made


def _prepare_torch(config: Config) -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if config.runtime.threads:
        torch.set_num_threads(config.runtime.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    transformers.set_seed(config.seed)


def _line(result: dict[str, Any]) -> str:
    scores = ", ".join(
        f"{metric} {group} {score['value']:.2f}"
        for group, metrics in result["scores"].items()
        for metric, score in metrics.items()
    )
    loss = result["validation_loss"]  # null without validation examples
    told = [] if loss is None else [f"validation loss {loss:.3f}"]
    return f"{result['run_id']}: {', '.join([*told, *([scores] if scores else [])]) or 'nothing was measured'}"


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns 0; 2 after a user's mistake, also in one job of a sweep; 130 when interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    log_to_terminal()
    failures: list[tuple[str, UserError]] = []
    try:
        compose.check(given)
        if process()[1] > 1 and compose.is_sweep(given):
            raise UserError("torchrun carries out one run: call it for each, or leave torchrun away for a sweep")
        compose.launch(given, lambda overrides: _job(overrides, failures))
    except UserError as error:
        failures.append(("", error))
    except KeyboardInterrupt:
        print("interrupted: what was finished is kept; the same command continues", file=sys.stderr)
        return 130
    for job, failure in failures if process()[0] == 0 else ():  # once, not once a process
        print(f"error: {failure}" + (f" [{job}]" if job and compose.is_sweep(given) else ""), file=sys.stderr)
    return 2 if failures else 0


def _together(config: Config, warnings: list[str], origins: dict[str, str]) -> None:
    """One run on several processes, of which this is one."""
    from alphatune.learn import ranks
    from alphatune.run import follow

    if ranks.rank() > 0:
        _prepare_torch(config)
        follow.follow(config)
        return
    with follow.leading():
        execute(config, warnings, origins)


def _job(overrides: list[str], failures: list[tuple[str, UserError]]) -> None:
    """One job. A user's mistake is kept for the end: the other jobs of a sweep go on and none prints a traceback."""
    try:
        config = compose.config_of(overrides)
        unused, origins = identity.unused(config, overrides), compose.sources_of(overrides)
        if process()[1] == 1:
            execute(config, unused, origins)
        else:
            _together(config, unused, origins)
    except UserError as error:
        if not compose.in_process():
            raise  # another process or machine: the launcher has to know
        failures.append((" ".join(overrides), error))
