"""Hyper-parameters by search: sweep files as W&B has them, carried out offline with Optuna.

Knows runs and their validation losses. Does not know tables.
"""
