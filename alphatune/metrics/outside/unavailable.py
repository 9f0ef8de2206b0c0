"""The exception of a metric whose tool or data is missing on this machine."""


class Unavailable(Exception):
    """The metric is left out of the result and this one-line reason is reported; nothing else takes its place."""
