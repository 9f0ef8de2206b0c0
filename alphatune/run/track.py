"""Following a run while it lasts: W&B, TensorBoard or nothing, behind two calls.

The record is the result, a tracker a view of it: one that fails costs a warning, never a run. A mistake of the user's
(no key, a package that is not installed) is told before any work. `alphatune push` makes the W&B
runs of finished records anew.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies

from alphatune.config import Config
from alphatune.errors import UserError
from alphatune.hf import hub

log = logging.getLogger("alphatune")
Curves = dict[str, list[Any]]  # "train" and "validation": (step, loss) in order of steps
_FINISH_SECONDS = 300.0  # how long the end of a run waits for a slow or dead W&B server


class Tracker(Protocol):
    """What a run tells a tracker."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """A point of the curves."""

    def finish(self, summary: dict[str, Any], curves: Curves | None = None) -> None:
        """The end of the run, with its final numbers; called once. `curves` serve where none came through `log`."""


def start(config: Config, run_id: str, values: dict[str, Any]) -> Tracker:
    """The tracker that `logger.name` asks for, started.

    Args:
        config: `logger` says which tracker, and where it writes.
        run_id: names the run.
        values: the config as the tracker shows it.

    Raises:
        UserError: a package is missing, or W&B is wanted online and there is no valid key.
    """
    logger = config.logger
    if logger.name == "none" or (logger.name == "wandb" and os.environ.get("WANDB_MODE") == "disabled"):
        return _Nothing()
    try:
        if logger.name == "tensorboard":
            return _Guarded(_TensorBoard(run_id, values))
        return _Guarded(Wandb(run_id, values, logger.project, logger.mode, logger.group))
    except UserError:
        raise
    except Exception as error:  # whatever a third-party service does at its start: the run goes on without it
        log.warning("tracker: this run goes on without one (%s)", told(error))
        return _Nothing()


def replay(config: Config, record: dict[str, Any]) -> None:
    """Show a run that was recorded earlier to a W&B sweep: its agent started the run and waits for the numbers."""
    if config.logger.name == "wandb" and os.environ.get("WANDB_SWEEP_ID"):
        start(config, record["run_id"], record["config"]).finish(summary(record), record["curves"])


def summary(record: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a record that a dashboard shows: validation_loss if it has one, sizes, scores as metric/group."""
    scores = {
        f"{metric}/{group}": score["value"]
        for group, metrics in record["scores"].items()
        for metric, score in metrics.items()
    }
    sizes = {name: value for name, value in record["sizes"].items() if value is not None}
    loss = {} if record["validation_loss"] is None else {"validation_loss": record["validation_loss"]}
    return {"status": record["status"], **loss, **scores, **sizes}


def points(curves: Curves) -> list[tuple[int, dict[str, float]]]:
    """The curves of a record as they were reported while it ran: (step, losses), in order of steps."""
    merged: dict[int, dict[str, float]] = {}
    for name in ("train", "validation"):
        for step, loss in curves[name]:
            merged.setdefault(step, {})[f"{name}_loss"] = loss
    return sorted(merged.items())


def tags(config: dict[str, Any]) -> list[str]:
    """What W&B filters runs by: task, model, method, and q where the method quantises."""
    names = [config[part]["name"] for part in ("task", "model", "method")]
    bits = [f"q{config['quant']['q']}"] if config["method"]["quantize"] != "never" else []
    return [name[:64] for name in names + bits]  # W&B refuses longer ones


class _Nothing:
    def log(self, step: int, values: dict[str, float]) -> None:
        pass

    def finish(self, summary: dict[str, Any], curves: Curves | None = None) -> None:
        pass


class _Guarded:
    """Turns the first failure of a tracker into a warning and lets the run go on without it."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker: Tracker | None = tracker
        self.logged = False

    def log(self, step: int, values: dict[str, float]) -> None:
        self.logged = True
        self._call("log", step, values)

    def finish(self, summary: dict[str, Any], curves: Curves | None = None) -> None:
        if not self.logged:  # the adaptation was reused, so nobody reported its curves
            for step, values in points(curves) if curves else []:
                self._call("log", step, values)
        self._call("finish", summary)

    def _call(self, method: str, *arguments: Any) -> None:
        if self.tracker is None:
            return
        try:
            getattr(self.tracker, method)(*arguments)
        except Exception as error:  # any failure of a third-party service: the run must outlive it
            log.warning("tracker: stopped following this run (%s)", told(error))
            self.tracker = None


class _TensorBoard:
    def __init__(self, run_id: str, values: dict[str, Any]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise UserError("logger=tensorboard: not installed; pip install 'alphatune[tensorboard]'") from error

        self.writer = SummaryWriter(str(Path("outputs/tensorboard") / run_id))
        text = json.dumps(values, indent=4, ensure_ascii=False)
        self.writer.add_text("config", "\n".join(f"    {line}" for line in text.splitlines()))  # as a code block

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()  # a point every few minutes: whoever watches wants it now

    def finish(self, summary: dict[str, Any], curves: Curves | None = None) -> None:
        for name, value in summary.items():
            if isinstance(value, int | float):
                self.writer.add_scalar(f"final/{name}", value, 0)
        self.writer.close()


class Wandb:
    """A W&B run. Its id is the hash in the run's name, so a run that continues, or is pushed again, stays one run.

    Args:
        resume: continue the history of a run with this id; False overwrites it.

    Raises:
        UserError: wandb is not installed, or there is no valid key for online mode.
    """

    def __init__(
        self, run_id: str, values: dict[str, Any], project: str, mode: str, group: str = "", *, resume: bool = True
    ) -> None:
        try:
            import wandb
        except ModuleNotFoundError as error:
            raise UserError("logger=wandb: not installed; pip install wandb, or use logger=tensorboard") from error

        offline = mode == "offline" or os.environ.get("WANDB_MODE") in ("offline", "dryrun")
        if not offline and not (os.environ.get("WANDB_API_KEY") or wandb.api.api_key):
            raise UserError(
                "logger=wandb: no W&B key found; set WANDB_API_KEY, or use logger.mode=offline and sync later"
            )
        if not offline and (host := _unreachable()):  # wandb would try for more than a minute
            log.warning("tracker: %s cannot be reached: this run is followed offline; wandb sync sends it later", host)
            offline = True
        in_sweep = bool(os.environ.get("WANDB_SWEEP_ID"))  # then the agent has chosen project and id
        settings = wandb.Settings(silent=True, console="off")
        if "finish_timeout" in wandb.Settings.model_fields:  # without it, finishing offers no way out of a dead network
            settings.finish_timeout, settings.finish_timeout_raises = _FINISH_SECONDS, True
        try:
            self.run = wandb.init(
                project=None if in_sweep else project,
                id=None if in_sweep else run_id.rsplit("-", 1)[-1],
                name=run_id,
                group=group or run_id.rsplit("/", 1)[0],
                job_type=values["method"]["name"],
                tags=tags(values),
                config=values,
                mode="offline" if offline else "online",
                dir=_folder("outputs"),
                resume="allow" if resume else None,
                reinit="finish_previous",
                settings=settings,
            )
        except wandb.errors.AuthenticationError as error:
            raise UserError(f"logger=wandb: W&B refuses the key: {' '.join(str(error).split())}") from error

    def log(self, step: int, values: dict[str, float]) -> None:
        """A point of the curves."""
        self.run.log(values, step=step)

    def finish(self, summary: dict[str, Any], curves: Curves | None = None) -> None:
        """The final numbers; a run that did not complete is marked as failed."""
        self.run.log({}, commit=True)  # W&B holds the last point back, and it would overwrite the final numbers
        self.run.summary.update(summary)
        self.run.finish(exit_code=0 if summary.get("status") == "completed" else 1)


def _unreachable() -> str | None:
    """The W&B server, if it does not answer. Not asked where a proxy stands between, or it has a port of its own."""
    url = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai")
    if getproxies() or url.port or not url.hostname or hub.reachable(url.hostname):
        return None
    return url.hostname


def told(error: Exception) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _folder(name: str) -> str:
    Path(name).mkdir(parents=True, exist_ok=True)
    return str(Path(name).resolve())  # W&B's service writes there, from the working directory that it started in
