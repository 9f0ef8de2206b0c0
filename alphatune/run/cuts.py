"""Texts that were cut, told at the end of a run."""

from __future__ import annotations

import logging

from alphatune.config import Task

log = logging.getLogger("alphatune")


def tell(task: Task, training: dict[str, int], decoding: dict[str, int], measuring: dict[str, int]) -> None:
    """Warn of contexts and targets that were longer than the task's limits."""
    told = [
        (training.get("truncated_contexts"), "contexts", "training", f"task.max_context={task.max_context}"),
        (training.get("truncated_targets"), "targets", "training", f"task.max_target={task.max_target}"),
        (decoding.get("truncated_contexts"), "contexts", "decoding", f"task.max_context={task.max_context}"),
        (measuring.get("truncated_contexts"), "contexts", "the loss", f"task.max_context={task.max_context}"),
        (measuring.get("truncated_targets"), "references", "the loss", f"task.max_target={task.max_target}"),
    ]
    for count, what, where, limit in told:
        if count:
            log.warning("%d %s were cut for %s: longer than %s tokens", count, what, where, limit)
