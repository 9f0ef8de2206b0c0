"""The record of a run: one JSON file that says exactly how a result was obtained. Written last, in one piece.

It holds no paths, host names, user names or secrets, so that it can go into a public repository. Its last entry is a
checksum of the others; records that were made before there was one are read without.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import platform
import resource
import subprocess
import sys
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from alphatune.config import Config
from alphatune.errors import UserError
from alphatune.run import shape
from alphatune.store import write_atomically

SCHEMA = 1
SEAL = "record_sha256"
log = logging.getLogger("alphatune")
_PACKAGES = (
    "torch", "transformers", "peft", "accelerate", "datasets", "tokenizers", "safetensors", "hydra-core", "omegaconf",
    "sacrebleu", "rouge-score", "nltk", "pyter3", "pycocoevalcap", "scikit-learn", "scipy", "numpy", "wandb",
    "llvmlite",
)  # fmt: skip
_DECIDING = ("alphatune", "conf", "pyproject.toml", "requirements.lock")  # what the dirty flag looks at


def path_of(records: str, run_id: str) -> Path:
    """Where the record of a run lies: <records>/<task>/<model>/<method>/<q-g-seed-hash>.json."""
    return Path(records) / f"{run_id}.json"


def write(path: Path, record: dict[str, Any]) -> None:
    """Write a record atomically, sealed by its checksum. NaN and infinity are refused: they are no results.

    Raises:
        UserError: a value is not finite.
    """
    try:
        text = json.dumps(sealed(record), indent=1, allow_nan=False, ensure_ascii=False)
    except ValueError as error:
        raise UserError(
            f"the result holds a value that is not a finite number, so no record was written: {error}"
        ) from error
    write_atomically(path, text + "\n")


def sealed(record: dict[str, Any]) -> dict[str, Any]:
    """The record with the checksum of all its other entries, independent of their order."""
    rest = {key: value for key, value in record.items() if key != SEAL}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return rest | {SEAL: hashlib.sha256(text.encode()).hexdigest()}


def read(path: Path) -> dict[str, Any]:
    """A record; one that carries a checksum is what was written.

    Raises:
        UserError: the file is no record of this schema, or has changed since it was written.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a readable record: {error}") from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise UserError(f"{path}: not a record of schema {SCHEMA}")
    if SEAL in record and sealed(record)[SEAL] != record[SEAL]:
        raise UserError(f"{path}: has changed since it was written (its checksum differs): run it again")
    return record


def whole(path: Path) -> dict[str, Any]:
    """A record that has all that tables and pages read of it.

    Raises:
        UserError: as `read`; or a part is missing or of another kind.
    """
    record = read(path)
    if reason := shape.lacks(record):
        raise UserError(f"{path}: a damaged record: {reason}: run it again")
    return record


def readable(path: Path) -> dict[str, Any] | None:
    """The same, or None for one that is not whole, which is told once: the others are read on."""
    try:
        return whole(path)
    except UserError as error:
        _tell(str(error))
        return None


@functools.cache
def _tell(reason: str) -> None:
    log.warning("left out: %s", reason)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def public_config(config: Config) -> dict[str, Any]:
    """The full resolved config, without what only says where and how the work was done."""
    values = asdict(config)
    del values["runtime"]
    del values["logger"]
    for place in ("dir", "train", "valid", "test"):
        del values["data"][place]
    if Path(config.model.name_or_path).is_dir():
        values["model"]["name_or_path"] = Path(config.model.name_or_path).name  # the hash says which weights
    return values


def solver(config: dict[str, Any]) -> str:
    """What found the codes of a recorded run: a solver, or "given" where its backbone came with them."""
    return "given" if config["method"]["quantize"] == "given" else str(config["quant"]["solver"])


def environment() -> dict[str, Any]:
    """Versions and hardware."""
    import torch

    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cuda": torch.version.cuda,
    }


def git() -> dict[str, Any]:
    """Commit of the code, and whether the files that decide results differ from it; both None outside a checkout."""
    root = Path(__file__).resolve().parents[2]

    def call(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None  # no git on this machine: the record then says that the commit is unknown
        return done.stdout.strip() if done.returncode == 0 else None

    if call("ls-files", "--error-unmatch", "alphatune/__init__.py") is None:
        # installed: the repository around it is another's
        return {"commit": None, "dirty": None}
    status = call("status", "--porcelain", "--", *_DECIDING)
    return {"commit": call("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def peak_memory_bytes() -> dict[str, int]:
    """Peak resident memory of this process, and peak memory allocated on the GPU."""
    import torch

    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if torch.cuda.is_available():
        peak["gpu"] = torch.cuda.max_memory_allocated()
    return peak


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cpu() -> str:
    """The processor's name and its threads."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} ({len(names)} threads)" if names else "unknown"
