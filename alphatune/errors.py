"""The one exception that is a message for a person."""


class UserError(Exception):
    """A mistake or a lack on the user's side, told in one line: what was wrong, what is allowed, what to do.

    The command line prints the message without a traceback and exits with status 2. Line breaks in a message come from
    a user's values and are spelled out; `lines` are further lines, for several mistakes at once.
    """

    def __init__(self, message: str, *lines: str) -> None:
        super().__init__(message, *lines)

    def __str__(self) -> str:
        return "\n  ".join(str(part).replace("\r", "\\r").replace("\n", "\\n") for part in self.args)
