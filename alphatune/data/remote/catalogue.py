"""What exists where: the pinned public source of every task.

LoRA's nine NLG files are byte-identical in two repositories. They are pinned by git blob id (sha1 of
"blob <size>\\0" and the bytes) and, where a copy was at hand, by sha256. Everything else comes from the hub at a
pinned revision. Nothing is taken from a branch.
"""

from __future__ import annotations

from dataclasses import dataclass

from alphatune.config import Task
from alphatune.errors import UserError

# Two mirrors of the same bytes, each at a fixed commit; {path} is the file's place below their data folder.
_MIRRORS = (
    "https://raw.githubusercontent.com/microsoft/LoRA/c4593f060e6a368d7bb5af5273b8e42810cdef90/examples/NLG/data/{path}",
    "https://raw.githubusercontent.com/XiangLi1999/PrefixTuning/6519d30e69b15a180f23e2cd41b766d3f62b8e82/data/{path}",
)
# PrefixTuning calls the folders of E2E and its files otherwise, so only LoRA serves those.
_LORA_ONLY = _MIRRORS[:1]


@dataclass(frozen=True)
class Remote:
    """One file that can be downloaded: its name here, where from, and what it must contain."""

    name: str
    urls: tuple[str, ...]
    git_blob: str
    sha256: str | None = None


@dataclass(frozen=True)
class Hub:
    """A data set on the Hugging Face hub at a pinned commit."""

    repo: str
    revision: str
    config: str | None = None


@dataclass(frozen=True)
class Release:
    """Where one task's files are: below a data root, and on the net."""

    folders: tuple[str, ...]  # names of the task's folder below a data root; the first is the cache's
    files: tuple[Remote, ...] = ()
    hub: Hub | None = None

    @property
    def downloadable(self) -> bool:
        """Whether the files can be had from the net."""
        return bool(self.files or self.hub)


def _remote(folder: str, name: str, blob: str, sha256: str | None, mirrors: tuple[str, ...] = _MIRRORS) -> Remote:
    return Remote(name, tuple(url.format(path=f"{folder}/{name}") for url in mirrors), blob, sha256)


_WEBNLG = Release(
    ("webnlg_challenge_2017", "webnlg"),
    (
        _remote(
            "webnlg_challenge_2017",
            "train.json",
            "461766d1fe902bd659b821a03f49310c22403686",
            "180edb6011360608c8548d4551366a9d55f140cbf9bc9397fbf4d97f6a89c639",
        ),
        _remote(
            "webnlg_challenge_2017",
            "dev.json",
            "180f096ff49a7e597dd7c507ea0c5441e839b770",
            "50f5a2c24d760bc84ba3e852707cd3b43b0cf2da035b425f87945a2440880488",
        ),
        _remote(
            "webnlg_challenge_2017",
            "test.json",
            "7f552799b7e3b5badf95b725c20d955e0886811e",
            "2574896b23b5959d1a0cd4bb501ffbeff1a11790a9996c4cb8efed289149ff4f",
        ),
    ),
)
_DART = Release(
    ("dart",),
    (
        _remote("dart", "dart-v1.1.1-full-train.json", "66d6ce4aeb5d01c318c7fc15d7747ef39ea320be", None),
        _remote(
            "dart",
            "dart-v1.1.1-full-dev.json",
            "e3a7a497677e7edd9c45a3aaadb3ab8fd5493f75",
            "5038f3543b6d59b94ac4e3f69d15a0b01d8578913f862142e7c560200dd6e434",
        ),
        _remote(
            "dart",
            "dart-v1.1.1-full-test.json",
            "c3de833701dcd475ff3bf0b72cd96e13aeeb6b68",
            "c772553b482dd5fc7b8ad90d68889062a2603e28d4449ee1f162006819e0565e",
        ),
    ),
)
_E2E = Release(
    ("e2e", "e2e_data"),
    (
        _remote(
            "e2e",
            "train.txt",
            "2f92a2790c00a48574dcc89465a326f33d7e7cc6",
            "eae319082237310913d9f37f6a891d48fb3f821f29d86870d2cb4f92ddd72c5a",
            _LORA_ONLY,
        ),
        _remote(
            "e2e",
            "valid.txt",
            "94f87112e11198710d65a1d5dc7d0b8d9155a07d",
            "ba963113c8401d3d26216c0dc0a6dae1ea6ea927de3bf830e32c41f65401c80d",
            _LORA_ONLY,
        ),
        _remote(
            "e2e",
            "test.txt",
            "084da9f4409d98058bcb020614afa83824440484",
            "81b1bcd40c4f12845ec4eb61a77bf43765d112483cd9b2f91ef10bfc1b3d8f13",
            _LORA_ONLY,
        ),
    ),
)
# The last commit that changed the CSV files; 2a6b79b, often cited, changes only the card above the same files.
_SAMSUM = Release(("samsum",), hub=Hub("knkarthick/samsum", "f8040674894a743112febaddde2b32264c07bb20"))
_GLUE_REVISION = "a3f3ab759b9d7018046ce361f115ef38276d2e1e"
_GLUE_FOLDERS = {
    "cola": "CoLA",
    "sst2": "SST-2",
    "mrpc": "MRPC",
    "stsb": "STS-B",
    "qqp": "QQP",
    "mnli": "MNLI",
    "qnli": "QNLI",
    "rte": "RTE",
}


def entry(task: Task) -> Release:
    """The entry of a task.

    Raises:
        UserError: the task's reader or variant has none.
    """
    match (task.reader, task.variant):
        case ("webnlg", _):
            return _WEBNLG
        case ("dart", "reconstructed"):
            return Release(_DART.folders)  # its training file is published nowhere
        case ("dart", _):
            return _DART
        case ("e2e", _):
            return _E2E
        case ("samsum", _):
            return _SAMSUM
        case ("glue", variant) if variant in _GLUE_FOLDERS:
            name = _GLUE_FOLDERS[variant]
            folders = (f"glue/{name}", name, f"glue/{variant}", variant)
            return Release(folders, hub=Hub("nyu-mll/glue", _GLUE_REVISION, variant))
        case _:
            raise UserError(f"task.reader={task.reader} task.variant={task.variant}: no files are known for it")
