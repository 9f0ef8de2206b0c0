"""From a task to its examples: which reader, which folder, and whether the counts are those of the published data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from omegaconf import OmegaConf

from alphatune import groups
from alphatune.config import Data, Task
from alphatune.data import dart, e2e, glue, own, samsum, toy, webnlg
from alphatune.data.example import Dataset, Example
from alphatune.data.pairs import empty_note
from alphatune.data.remote import files
from alphatune.data.remote.catalogue import entry
from alphatune.errors import UserError

_FILES: dict[str, ModuleType] = {"webnlg": webnlg, "dart": dart, "e2e": e2e, "samsum": samsum, "glue": glue}
READERS = ("toy", *_FILES, own.READER)


def load(task: Task, data: Data, *, progress: bool = False) -> Dataset:
    """The data set of a task, read from the first place that has its files.

    `data.train_limit` and `data.eval_limit` are left to the caller, who has the seed.

    Args:
        task: what to read.
        data: where to look, whether the network may be used, whether other counts are accepted.
        progress: show a bar if files must be downloaded.

    Raises:
        UserError: no files, damaged files, or other counts than `task.counts` without `data.allow_count_mismatch`.
    """
    dataset = _read(task, data, progress)
    problems = count_problems(task, dataset, task.counts)
    if not problems:
        return dataset
    if not data.allow_count_mismatch:
        accept = "a run with data.allow_count_mismatch=true accepts them and says so in its record"
        raise UserError(f"{_count_message(task, dataset, problems)}; {accept}")
    notes = {f"{what}: expected {expected}, accepted": found for what, (found, expected) in problems.items()}
    return dataclasses.replace(dataset, notes=dataset.notes | notes)


def load_split(task_name: str, split: str, *, allow_count_mismatch: bool = False) -> list[Example]:
    """The examples of a task's split in decoding order, with their references or labels.

    Only the counts of this split are checked, so that scoring needs no training file.

    Raises:
        UserError: an unknown task or split, hidden labels, no files, or other counts than expected.
    """
    return split_of(task_config(task_name), Data(), split, allow_count_mismatch=allow_count_mismatch)[1]


def split_of(task: Task, data: Data, split: str, *, allow_count_mismatch: bool = False) -> tuple[Task, list[Example]]:
    """The same for a task that is described already, and the task with its classes. Raises UserError likewise."""
    if split not in ("train", "validation", "test"):
        raise UserError(f"split={split}: must be one of: train, validation, test")
    dataset = _read(task, data, False)
    problems = count_problems(task, dataset, (c for c in task.counts if c.removesuffix("_targets") == split))
    if problems and not allow_count_mismatch:
        raise UserError(f"{_count_message(task, dataset, problems)}; --allow-count-mismatch accepts them")
    examples = dataset.split(split)
    if task.reader == own.READER and not examples:
        raise UserError(f"task={task.name}: no file of its {split} split: give data.{own.SPLITS[split]}=FILE")
    if task.kind != "generation" and any(example.label is None for example in examples):
        raise UserError(f"task={task.name}: the labels of its {split} split are hidden; use --split validation")
    return own.resolved(task, dataset), examples


def task_names() -> list[str]:
    """The tasks of `conf/task/`, which are the values that `task=` takes."""
    return groups.choices("task")


def task_config(name: str) -> Task:
    """The task of `conf/task/<name>.yaml`, for commands that run without the rest of the configuration.

    Raises:
        UserError: no such task.
    """
    if name not in groups.choices("task"):
        raise UserError(f"task={name}: must be one of: {', '.join(groups.choices('task'))}")
    path = groups.folder() / "task" / f"{name}.yaml"
    task = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Task), OmegaConf.load(path)))
    assert isinstance(task, Task)
    return task


def find(task: Task, data: Data, *, progress: bool = False) -> Path:
    """The folder that `load` would read, downloaded if need be. See `files.resolve` for the errors."""
    return files.resolve(task, data, _reader(task).fits, progress=progress)


def count_problems(task: Task, dataset: Dataset, names: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Counts that differ: name -> (found, expected).

    A split's name counts its examples, `<split>_targets` their texts. Releases state their sizes with or without the
    empty texts that reading drops, so either number is right.
    """
    problems = {}
    for name in names:
        split = name.removesuffix("_targets")
        examples = dataset.split(split)
        if split == "test" and task.evaluate_on != "test" and not examples:
            continue  # GLUE's test labels are hidden and nothing is computed on that split: its file is not needed
        found = sum(len(e.targets) for e in examples) if name != split else len(examples)
        if task.counts[name] not in (found, found + dataset.notes.get(empty_note(split), 0)):
            problems[name] = (found, task.counts[name])
    return problems


def _read(task: Task, data: Data, progress: bool) -> Dataset:
    if task.reader == "toy":
        return toy.read(task)
    if task.reader == own.READER:
        return own.read(task, data)
    folder = find(task, data, progress=progress)
    dataset: Dataset = _reader(task).read(folder, task)
    pins = {remote.name: remote.sha256 for remote in entry(task).files if remote.sha256}
    differing = sum(pins.get(name, sha256) != sha256 for name, sha256 in dataset.files.items())
    if differing:
        dataset.notes["files that differ from the pinned release"] = differing
    return dataset


def _reader(task: Task) -> ModuleType:
    found = _FILES.get(task.reader)
    if found is None:
        raise UserError(f"task.reader={task.reader}: must be one of: {', '.join(READERS)}")
    return found


def _count_message(task: Task, dataset: Dataset, problems: dict[str, tuple[int, int]]) -> str:
    told = "; ".join(f"{name}: found {found:,}, expected {expected:,}" for name, (found, expected) in problems.items())
    notes = f"; notes: {', '.join(f'{k}: {v}' for k, v in dataset.notes.items())}" if dataset.notes else ""
    return f"task={task.name}: not the published data: {told}; files read: {', '.join(dataset.files)}{notes}"
