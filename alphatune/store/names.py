"""Names that a config gives, as parts of paths: the one place where they become folders and files."""

from __future__ import annotations

from alphatune.errors import UserError

_LONGEST = 120  # characters; file systems take 255 bytes, and a record's name has more parts


def path_part(name: str, key: str) -> str:
    """`name` as one part of a path: "/" becomes "-", everything else stays as it is.

    Args:
        name: e.g. "glue/rte".
        key: the setting that gave it, for the message.

    Raises:
        UserError: the part would leave its folder, hide, or be none: an empty name, "..", one that starts with a dot,
            one with a character that does not print, a backslash or a colon, or a very long one.
    """
    part = name.replace("/", "-")
    shown = name if name.isprintable() else ascii(name)
    if part.startswith(".") or not part.strip() or not part.isprintable() or set(part) & set('\\:*?"<>|'):
        raise UserError(
            f"{key}={shown}: cannot name a folder: use letters, digits and signs such as - and _, no dot at the start"
        )
    if len(part.encode()) > _LONGEST:
        raise UserError(f"{key}={shown[:40]}...: {len(part)} characters cannot name a folder; at most {_LONGEST}")
    return part
