"""One run: its identity, the checks before it, its stages in order, its record.

Knows the store and every room that does a stage's work. Does not know that there are other runs.
"""
