"""The packed linear layer, and a model full of it: made, calibrated, written and read.

Knows torch modules and where the linear layers of a transformer are. Does not know adapters, checkpoints of the hub,
tasks or runs.
"""
