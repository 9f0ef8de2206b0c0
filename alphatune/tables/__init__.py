"""From an experiment file to a grid of values: cells, their runs, aggregates, verdicts.

Knows runs by their records, and how to have the missing ones carried out, here or on SLURM. Does not know markup.
"""
