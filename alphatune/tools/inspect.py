"""`alphatune inspect`: what is in a checkpoint or an adapter, from the headers of its files.

Only the fingerprint of a packed base, which its adapters are bound to, needs the codes and scales themselves; they are
read one tensor at a time.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from alphatune.errors import UserError
from alphatune.hf import checkpoints, sealed
from alphatune.hf.checkpoints import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from alphatune.packed.fingerprint import Part
from alphatune.packed.fingerprint import fingerprint as packed_fingerprint
from alphatune.packed.walk import weight_of
from alphatune.quant.grouping import Grouping
from alphatune.quant.packing import WORD

_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
_PACKED = ("qweight", "alpha", "offset")
_TORCH_NAMES = {"I32": "torch.int32", "F32": "torch.float32"}  # as the fingerprint spells them


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes in the file."""
        return self.numel * _BYTES.get(self.dtype, 1)


@dataclass(frozen=True)
class Layer:
    """A weight matrix, [out, in] where it is packed and as it is stored where it is not."""

    name: str
    shape: tuple[int, ...]
    bits: int | None  # None: not packed
    group_size: int | None
    bytes: int
    fp32_bytes: int


@dataclass
class Report:
    """All that `inspect` says of a folder."""

    kind: str  # "packed", "plain" or "adapter"
    name: str
    layers: list[Layer]
    bytes: int
    fp32_bytes: int
    other: dict[str, int]  # dtype -> bytes of everything that is not among the layers
    format: str | None = None
    fingerprint: str | None = None
    base: str | None = None  # of an adapter
    details: dict[str, Any] = field(default_factory=dict)
    adapters: list[dict[str, Any]] = field(default_factory=list)
    verified: bool | None = None  # whether checksums were there and hold; None: not looked at

    @property
    def ratio(self) -> float:
        """How many times smaller than in FP32."""
        return self.fp32_bytes / self.bytes if self.bytes else 1.0


def run(args: argparse.Namespace) -> int:
    """Print what is in the folder that the command line names.

    Raises:
        UserError: there is no checkpoint or adapter, or it is damaged or foreign.
    """
    folder = checkpoints.local(args.dir, args.revision)
    report = inspect(folder, fingerprint=not args.headers_only)
    if not args.headers_only:
        report.verified = sealed.verify(folder)
    if args.json:
        print(json.dumps({**asdict(report), "ratio": report.ratio}, indent=2))
    else:
        print("\n".join(_lines(report)))
    return 0


def inspect(folder: Path, fingerprint: bool = True) -> Report:
    """What is in `folder`; `fingerprint` says whether to read the codes and scales of a packed model for their hash.

    Raises:
        UserError: there is no checkpoint or adapter, or it is damaged or foreign.
    """
    if (folder / ADAPTER_CONFIG).is_file():
        return _adapter(folder)
    config = checkpoints.settings(folder)
    entries = headers(checkpoints.weight_files(folder))
    if checkpoints.quant_method(config) is None:
        return _plain(folder, entries)
    return _packed(folder, config, entries, fingerprint)


def headers(files: list[Path]) -> dict[str, StoredTensor]:
    """All tensors in safetensors files by name, without reading their values.

    Raises:
        UserError: a file is missing, cut off, or something else.
    """
    found: dict[str, StoredTensor] = {}
    for file in files:
        if not file.is_file():
            raise UserError(f"{file}: this part of the checkpoint is missing")
        try:
            with safe_open(file, framework="numpy") as opened:
                for key in opened.keys():  # noqa: SIM118  # no mapping
                    part = opened.get_slice(key)
                    found[key] = StoredTensor(file, part.get_dtype(), tuple(part.get_shape()))
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file}: not a whole safetensors file: {checkpoints.first_line(error)}") from error
    return found


def _plain(folder: Path, entries: dict[str, StoredTensor]) -> Report:
    matrices = {n: e for n, e in entries.items() if len(e.shape) == 2}
    layers = [Layer(n, e.shape, None, None, e.bytes, 4 * e.numel) for n, e in sorted(matrices.items(), key=_natural)]
    others = {n: e for n, e in entries.items() if n not in matrices}
    dense = 4 * sum(e.numel for e in entries.values())
    size = sum(e.bytes for e in entries.values())
    found = Report("plain", folder.resolve().name, layers, size, dense, _by_dtype(others))
    dtypes = Counter(e.dtype for e in matrices.values())
    found.details = {"dtype of the matrices": ", ".join(f"{d} ({n})" for d, n in dtypes.most_common())}
    found.adapters = _adapters(folder, None)
    return found


def _packed(folder: Path, config: dict[str, Any], entries: dict[str, StoredTensor], fingerprint: bool) -> Report:
    sizes = config["quantization_config"].get("modules")
    if not isinstance(sizes, dict) or not sizes:
        raise UserError(f"{folder}: quantization_config names no packed layers")
    model, layers, taken = checkpoints.skeleton(folder), list[Layer](), set[str]()
    modules = {name: module for name, module in model.named_modules() if name in sizes}  # in the model's own order
    if len(modules) < len(sizes):
        lost = next(name for name in sizes if name not in modules)
        raise UserError(f"{folder}: {type(model).__name__} has no layer {lost}; config.json is of another model")
    for name, module in modules.items():
        parts = {f"{name}.{p}": entries[f"{name}.{p}"] for p in _PACKED if f"{name}.{p}" in entries}
        if f"{name}.qweight" not in parts or f"{name}.alpha" not in parts:
            raise UserError(f"{folder}: the weights lack codes or scales of {name}")
        rows, columns = weight_of(module).shape
        taken.update(parts)
        packed = sum(e.bytes for e in parts.values())
        bits = _bits(name, parts, (rows, columns), sizes[name])
        layers.append(Layer(name, (rows, columns), bits, sizes[name], packed, 4 * rows * columns))
    others = {n: e for n, e in entries.items() if n not in taken}
    # one packed layer has checksums in the place of its weight
    kept = [e.numel for n, e in others.items() if n.removesuffix(".weight") not in sizes]
    dense = sum(layer.fp32_bytes for layer in layers) + 4 * sum(kept)
    found = Report("packed", folder.resolve().name, layers, sum(e.bytes for e in entries.values()), dense,
                   _by_dtype(others), checkpoints.quant_method(config))  # fmt: skip
    found.details = {k: v for k, v in config["quantization_config"].items() if k in ("solver", "offset", "group_size")}
    if fingerprint:
        found.fingerprint = packed_fingerprint(_parts(list(modules), entries))
    found.adapters = _adapters(folder, found.fingerprint)
    return found


def _bits(name: str, parts: dict[str, StoredTensor], shape: tuple[int, int], size: object) -> int:
    """The planes of a packed layer whose tensors have the shapes that its matrix and group size ask for.

    Raises:
        UserError: they do not, or the group size is none.
    """
    codes = parts[f"{name}.qweight"]
    if not isinstance(size, int) or isinstance(size, bool):
        raise UserError(f"{codes.file}: config.json gives {size!r} as the number of weights per scale of {name}")
    groups = Grouping.of(*shape, size).scales_shape
    bits = codes.shape[1] if len(codes.shape) == 3 else 0
    wanted = {
        "qweight": (-(-shape[1] // WORD), bits, shape[0]), "alpha": (groups[0], bits, groups[1]), "offset": groups,
    }  # fmt: skip
    for part, entry in parts.items():
        expected = wanted[part.rpartition(".")[2]]
        if entry.shape != expected or not bits:
            raise UserError(f"{entry.file}: {part} has shape {list(entry.shape)}, config.json implies {list(expected)}")
    return bits


def _parts(names: list[str], entries: dict[str, StoredTensor]) -> Iterator[Part]:
    """The tensors of the packed layers, read from the files without loading a model."""
    for name in names:
        for part in _PACKED:
            entry = entries.get(f"{name}.{part}")
            if entry is None:
                continue
            if entry.dtype not in _TORCH_NAMES:
                raise UserError(f"{entry.file}: {name}.{part} is {entry.dtype}, not int32 or float32")
            with safe_open(entry.file, framework="numpy") as opened:
                yield _TORCH_NAMES[entry.dtype], entry.shape, opened.get_tensor(f"{name}.{part}").tobytes()


def _adapter(folder: Path) -> Report:
    config = checkpoints.read_json(folder / ADAPTER_CONFIG)
    if "peft_type" not in config:
        raise UserError(f"{folder / ADAPTER_CONFIG}: names no peft_type, so it is no adapter of peft")
    if not (folder / ADAPTER_WEIGHTS).is_file():
        pickles = list(folder.glob("*.bin"))
        reason = f"; {pickles[0].name} is a pickle file, which is not read" if pickles else ""
        raise UserError(f"{folder} has no {ADAPTER_WEIGHTS}{reason}")
    entries = headers([folder / ADAPTER_WEIGHTS])
    layers = [Layer(n, e.shape, None, None, e.bytes, 4 * e.numel) for n, e in sorted(entries.items(), key=_natural)]
    size, dense = sum(e.bytes for e in entries.values()), 4 * sum(e.numel for e in entries.values())
    found = Report("adapter", folder.resolve().name, layers, size, dense, {}, str(config["peft_type"]))
    found.fingerprint, found.base = config.get("base_fingerprint"), config.get("base_model_name_or_path")
    found.details = {k: config[k] for k in ("trainable", "task_type", "r", "modules_to_save") if config.get(k)}
    return found


def _adapters(folder: Path, fingerprint: str | None) -> list[dict[str, Any]]:
    """The adapters in subfolders; a damaged one is told, not raised: the folder itself is whole."""
    found = []
    for path in sorted([*folder.glob(f"*/{ADAPTER_CONFIG}"), *folder.glob(f"*/*/{ADAPTER_CONFIG}")]):
        entry: dict[str, Any] = {"name": path.parent.relative_to(folder).as_posix()}
        try:
            adapter = _adapter(path.parent)
        except UserError as error:
            entry["error"] = str(error)
        else:
            known = fingerprint is not None and adapter.fingerprint is not None
            entry |= {"type": adapter.format, "bytes": adapter.bytes,
                      "fits": adapter.fingerprint == fingerprint if known else None}  # fmt: skip
        found.append(entry)
    return found


def _by_dtype(entries: dict[str, StoredTensor]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for entry in entries.values():
        found[entry.dtype] += entry.bytes
    return dict(found)


def _natural(item: tuple[str, Any]) -> list[tuple[int, int, str]]:
    """Sorts block 10 after block 2."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in item[0].split(".")]


def _lines(report: Report) -> list[str]:
    about = {"packed": "packed checkpoint", "plain": "plain checkpoint", "adapter": "adapter"}[report.kind]
    extra = ", ".join(f"{key} {value}" for key, value in report.details.items() if value not in (None, False))
    lines = [f"{report.name}: {', '.join(part for part in (about, report.format, extra) if part)}"]
    packed = report.kind == "packed"
    rows = [["layer", "shape", *(["bits", "group"] if packed else []), "bytes", "FP32 bytes"]]
    for layer in report.layers:
        codes = [str(layer.bits), f"{layer.group_size:,}"] if packed else []
        rows.append(
            [layer.name, " x ".join(map(str, layer.shape)), *codes, f"{layer.bytes:,}", f"{layer.fp32_bytes:,}"]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines += [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    if report.other:
        lines.append("everything else: " + ", ".join(f"{d} {size:,} bytes" for d, size in sorted(report.other.items())))
    lines.append(f"total: {report.bytes:,} bytes, {report.fp32_bytes:,} in FP32: {report.ratio:.2f} times smaller")
    if report.base:
        lines.append(f"base: {report.base}")
    if report.fingerprint:
        lines.append(f"{'base ' if report.kind == 'adapter' else ''}fingerprint: {report.fingerprint}")
    if report.verified is not None:
        lines.append("checksums: all hold" if report.verified else "checksums: none, so damage cannot be seen")
    for adapter in report.adapters:
        if "error" in adapter:
            lines.append(f"adapter {adapter['name']}: {adapter['error']}")
            continue
        fits = {True: ", of this base", False: ", of another base", None: ""}[adapter["fits"]]
        lines.append(f"adapter {adapter['name']}: {adapter['type']}, {adapter['bytes']:,} bytes{fits}")
    return lines
