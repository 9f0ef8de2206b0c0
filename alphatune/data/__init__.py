"""Task data: one module per source format, each giving `Example`s."""

from alphatune.data.load import load_split, task_config, task_names

__all__ = ["load_split", "task_config", "task_names"]
