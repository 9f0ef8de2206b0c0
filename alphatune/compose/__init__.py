"""From a command line to the checked config of a run, and where each of its values came from.

Knows Hydra and the files of `conf/`. Does not know what any setting does.
"""
