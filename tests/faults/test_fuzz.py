"""Random input of every kind: each case ends in time, in a result or in one line that says what is wrong.

Every test is there twice: with a few cases among the default tests, with many (1,750 in all) among the slow ones.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alphatune.compose import sources
from alphatune.compose.compose import config_of
from alphatune.config import Config
from alphatune.data.load import load, task_config
from alphatune.errors import UserError
from alphatune.hf import checkpoints, sealed
from alphatune.run import identity, record
from alphatune.store import Store, digest, fault
from alphatune.tables import experiment, values
from alphatune.tools import inspect, score

SECONDS = 20
_READY: dict[str, Path] = {}


def _both(check: Callable[[Any], None], strategy: st.SearchStrategy[Any], few: int, many: int) -> None:
    """Make two tests of `check`: one with few and fixed cases, one with many, marked slow."""
    name = check.__name__.removeprefix("_")
    for cases, suffix in ((few, ""), (many, "_at_length")):

        def run(case: Any) -> None:
            check(case)

        run.__name__ = run.__qualname__ = f"test_{name}{suffix}"
        run.__doc__ = check.__doc__
        run.__module__ = __name__
        limits = settings(
            max_examples=cases, deadline=SECONDS * 1000, derandomize=cases == few, database=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        test = limits(given(strategy)(run))
        globals()[f"test_{name}{suffix}"] = pytest.mark.slow(test) if suffix else test


def _one_line(call: Callable[[], Any]) -> Any:
    """What a call gives, or None after one line of error; anything else fails the test."""
    try:
        return call()
    except UserError as error:
        text = str(error)
        assert text and "\n" not in text and len(text) < 3000, text
        return None


# ---- values ----------------------------------------------------------------------------------------------------------

_KEYS = sources._fields()
_WORDS = st.sampled_from(
    ["", "null", "true", "-1", "0", "1", "-0.0", "1e400", "nan", "inf", "-inf", "1_000", "0x10", "010", "3.5", "h",
     "0.5h", "infh", "1e2h", " 2h", "[]", "[a,b]", "{}", "{a: 1}", "[[[[]]]]", "..", "../../x", "/", "a/b", "~", "a b",
     "a,b", "=", "==1", "'", '"', "\\", "${", "${quant.q}", "${oc.env:HOME}", "${nothing}", "$(x)", "?", "???", "!!int",
     "&a", "*a", "tiny", "bcq", "9" * 400, "9" * 5000, "é\u2028", "range(1,3)", "choice(1,2)", "glob(*)", "sort(1)",
     "@x", "<b>", "=cmd()"]
)  # fmt: skip
_SETTINGS = st.tuples(
    st.sampled_from(_KEYS), _WORDS | st.text(max_size=12) | st.integers().map(str) | st.floats().map(str)
)


def _a_setting(case: tuple[str, str]) -> None:
    """One override: a config that the schema allows, whose record stays in its folder, or one line."""
    key, value = case
    config = _one_line(lambda: config_of([f"{key}={value}"]))
    if config is None:
        return
    assert isinstance(config, Config)
    found: Any = config
    for part in key.split("."):
        found = getattr(found, part)
    if isinstance(found, int | float):
        assert math.isfinite(found)
    plan = _one_line(lambda: identity.plan(config, {}, {}))
    if plan is not None:
        records = Path("/records")
        path = record.path_of(str(records), plan.run_id)
        assert ".." not in path.parts and len(path.parts) == 6 and path.is_relative_to(records), path


_both(_a_setting, _SETTINGS, 40, 400)


# ---- files -----------------------------------------------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_CHANGES = st.tuples(
    st.sampled_from(["value", "value", "value", "drop", "flip", "cut", "empty", "bytes", "nest", "double"]),
    st.integers(0, 10**6), _JSON, st.binary(max_size=12),
)  # fmt: skip


def _places(node: Any) -> list[tuple[Any, Any]]:
    """All (container, key) pairs inside a JSON value."""
    keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
    return [pair for key in keys for pair in [(node, key), *_places(node[key])]]


def _changed(content: bytes, change: tuple[str, int, Any, bytes]) -> bytes:
    """A file with one change: of its JSON where it is JSON, else of its bytes."""
    kind, number, value, extra = change
    if kind in ("value", "drop"):
        try:
            parsed = json.loads(content)
        except ValueError:
            kind = "bytes"
        else:
            container, key = (places := _places(parsed))[number % len(places)]
            if kind == "value":
                container[key] = value
            else:
                del container[key]
            return json.dumps(parsed).encode(errors="surrogatepass")
    at = number % max(1, len(content))
    if kind == "flip" and content:
        return content[:at] + bytes([content[at] ^ (1 << number % 8)]) + content[at + 1 :]
    return {"cut": content[:at], "empty": b"", "nest": b"[" * 20_000 + content, "double": content + content}.get(
        kind, content[:at] + extra + content[at:]
    )


_WEBNLG = {"entries": [{"1": {
    "category": "City", "lexicalisations": [{"comment": "good", "lex": "A is in B .", "xml_id": "Id1"}],
    "modifiedtripleset": [{"object": "B", "property": "in", "subject": "A"}], "size": "1", "xml_id": "Id1",
}}]}  # fmt: skip
_DART = [{"tripleset": [["A", "in", "B"]], "annotations": [{"source": "x", "text": "A is in B ."}]}]


def _a_data_file(case: tuple[str, tuple[str, int, Any, bytes]]) -> None:
    """A damaged data file: a data set with texts in it, or one line that names the file."""
    reader, change = case
    names, content = {
        "webnlg": (["train.json", "dev.json", "test.json"], json.dumps(_WEBNLG).encode()),
        "dart": ([f"dart-v1.1.1-full-{s}.json" for s in ("train", "dev", "test")], json.dumps(_DART).encode()),
        "e2e": (["train.txt", "valid.txt", "test.txt"], b"name : A | food : B || A has B .\n"),
        "samsum": (["train.csv", "validation.csv", "test.csv"], b'id,dialogue,summary\n1,"A: hi",greets\n'),
        "glue/cola": (["train.tsv", "dev.tsv"], b"a\t1\t\tIt is .\nb\t0\t*\tIs it\n"),
        "glue/stsb": (["train.jsonl", "validation.jsonl"],
                      b'{"sentence1": "a", "sentence2": "b", "label": 2.5, "idx": 0}\n'),
    }[reader]  # fmt: skip
    task = task_config(reader)
    task.counts = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            (Path(folder) / name).write_bytes(content)
        (Path(folder) / names[0]).write_bytes(_changed(content, change))
        data = _one_line(lambda: load(task, config_of([f"data.dir={folder}"]).data))
        for example in data.train if data else []:
            assert isinstance(example.text, str) and example.text != "None"
            label = example.label
            assert label is None or (math.isfinite(label) and (not task.labels or 0 <= label < len(task.labels)))


_READERS = st.sampled_from(["webnlg", "dart", "e2e", "samsum", "glue/cola", "glue/stsb"])
_both(_a_data_file, st.tuples(_READERS, _CHANGES), 40, 300)


def _score_files(case: tuple[bytes, bytes, list[str]]) -> None:
    """Any two files: finite scores, or one line and exit status 2."""
    hypotheses, references, metrics = case
    with tempfile.TemporaryDirectory() as folder:
        hyp, ref = Path(folder) / "hyp.txt", Path(folder) / "ref.txt"
        hyp.write_bytes(hypotheses)
        ref.write_bytes(references)
        given = ["--task=webnlg", f"--hypotheses={hyp}", f"--references={ref}", f"--metrics={','.join(metrics)}"]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = score.main([*given, "--jobs=1", "--json"])
        assert status in (0, 2), err.getvalue()
        if status == 2:
            assert err.getvalue().count("\n") == 1 and not out.getvalue(), err.getvalue()
        else:
            json.loads(out.getvalue(), parse_constant=lambda text: pytest.fail(f"{text} as a score"))


_TEXT = st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace"))
_LINES = st.lists(_TEXT, min_size=1, max_size=3).map(b"\n".join) | st.binary(max_size=30)
_METRICS = st.lists(st.sampled_from(["bleu", "ter", "nist", "rouge1", "chrf", "nothing"]), min_size=1, max_size=2)
_both(_score_files, st.tuples(_LINES, _LINES, _METRICS), 12, 150)


# ---- weights ---------------------------------------------------------------------------------------------------------


def _packed() -> Path:
    """A small packed model and an adapter of it, saved once."""
    if "packed" not in _READY:
        from transformers import GPT2Config, GPT2LMHeadModel

        import alphatune

        alphatune.register()
        root = Path(tempfile.mkdtemp())
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=64, n_positions=16))
        alphatune.quantize_model(model, alphatune.BCQConfig(2), progress=False)
        model.save_pretrained(root / "base")
        from peft import get_peft_model

        get_peft_model(model, alphatune.AlphaTuningConfig(task_type="CAUSAL_LM")).save_pretrained(str(root / "adapter"))
        _READY["packed"] = root
    return _READY["packed"]


def _a_checkpoint(case: tuple[str, tuple[str, int, Any, bytes]]) -> None:
    """A damaged packed model or adapter: what was saved, or one line. A changed tensor is never taken."""
    name, change = case
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / "copy"
        shutil.copytree(_packed(), copied)
        file = copied / name
        before = file.read_bytes()
        file.write_bytes(_changed(before, change))
        report = _one_line(lambda: inspect.inspect(file.parent))
        held = _one_line(lambda: sealed.verify(file.parent))
        if name == "base/model.safetensors" and file.read_bytes() != before and report is not None:
            assert held is not True, "a damaged file passes its own checksums"
        if report is None:
            return
        if file.parent.name == "base":
            _one_line(lambda: checkpoints.load(file.parent))
        else:
            base = checkpoints.load(copied / "base")
            _one_line(lambda: checkpoints.load_adapters(base, [file.parent]))


_FILES = st.sampled_from(
    ["base/config.json", "base/model.safetensors", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"]
)
_both(_a_checkpoint, st.tuples(_FILES, _CHANGES), 15, 200)


# ---- experiments, records, artefacts ---------------------------------------------------------------------------------

_YAML = st.sampled_from(
    ["5", "[]", "a: [", "\t- x", "a: 1\na: 2", "!!python/object:os.system x", "a: &a [*a]", "x: !x y", "\ufeffa: 1",
     "---\n---", "title: ${oc.env:HOME}", "&a a: &b [*a, *b]", "? [a]\n: b", "a: .nan", "1: 2", "null: 3",
     "- - - - x", "a: 0x", "\x00", "<<: {a: 1}", "title: {a: 1}\ncolumns: 5", "rows: [1]", "seeds: [x]",
     "seeds: 1e999", "columns: [{key: a}]"]
)  # fmt: skip


def _an_experiment_file(case: tuple[bytes, str, str]) -> None:
    """Any text in the place of an experiment or in one of its values: an experiment, or one line; no environment."""
    content, key, value = case
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "FOLDER", Path(folder))
        patch.setenv("SECRET", "s3cr3t-value")
        text = f"title: T\ncolumns: [{{key: bleu_all, label: B}}]\nrows: []\n{key}: {value}\n".encode(
            "utf-8", "replace"
        )
        for name, written in (("a", content), ("b", text)):
            (Path(folder) / f"{name}.yaml").write_bytes(written)
            found = _one_line(lambda name=name: experiment.load(name))  # type: ignore[misc]
            assert "s3cr3t-value" not in repr(found)


_PARTS = ["note", "title", "seeds", "rows", "columns", "base", "claims", "needs", "own_process", "other"]
_WHOLE_FILES = st.binary(max_size=40) | _YAML.map(lambda text: text.encode()) | _TEXT
_VALUES = _YAML | st.text(max_size=10) | _JSON.map(json.dumps) | st.just("${oc.env:SECRET}")
_both(_an_experiment_file, st.tuples(_WHOLE_FILES, st.sampled_from(_PARTS), _VALUES), 40, 250)


def _a_record_file(change: tuple[str, int, Any, bytes]) -> None:
    """A damaged record, sealed or not: left out, or all that tables read of it is of its kind."""
    source = sorted((ROOT / "results" / "records").rglob("*.json"))[0]
    for made in (source.read_bytes(), json.dumps(record.sealed(json.loads(source.read_bytes()))).encode()):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "q3-seed0-0123456789.json"
            path.write_bytes(_changed(made, change))
            found = record.readable(path)
            if found is None:
                continue
            if record.SEAL in found:
                assert {k: v for k, v in found.items() if k != record.SEAL} == json.loads(source.read_bytes())
            for name in ("valid_loss", "valid_rise", "bleu_all", "trainable_params", "checkpoint_mb"):
                value = values.of_record(found, name)
                assert value is None or math.isfinite(value)


_both(_a_record_file, _CHANGES, 40, 250)


def _an_artefact(case: tuple[str, tuple[str, int, Any, bytes]]) -> None:
    """A damaged manifest or file of an artefact: found, unless it is as it was."""
    name, change = case

    def make(folder: Path) -> None:
        (folder / "weights").write_bytes(b"0123456789" * 5)

    with tempfile.TemporaryDirectory() as root:
        folder = Store(root).get("stage", {"a": 1}, make).path
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(_changed(before, change))
        if fault(folder, {"a": 1}) is None:
            assert (folder / "weights").read_bytes() == b"0123456789" * 5
            manifest = json.loads((folder / "manifest.json").read_bytes())
            assert digest(manifest["spec"]) == digest({"a": 1}) and list(manifest["files"]) == ["weights"]


_both(_an_artefact, st.tuples(st.sampled_from(["manifest.json", "weights"]), _CHANGES), 40, 200)


def test_yaml_that_would_fill_the_memory_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    (tmp_path / "cycle.yaml").write_text("title: &a [*a]\n")
    (tmp_path / "tag.yaml").write_text("title: !!python/object/apply:os.system ['touch x']\n")
    (tmp_path / "deep.yaml").write_text("title: " + "[" * 1000 + "]" * 1000)
    monkeypatch.setattr(experiment, "FOLDER", tmp_path)
    wanted = {"bomb": "line 1: anchors and aliases", "cycle": "anchors", "tag": "tags", "deep": "levels"}
    for name, reason in wanted.items():
        with pytest.raises(UserError, match=rf"^{name}\.yaml.*{reason}"):
            experiment.load(name)


def test_the_cases_of_the_long_form_are_a_thousand() -> None:
    module = sys.modules[__name__]
    tests = [getattr(module, name) for name in dir(module) if name.endswith("_at_length")]
    assert sum(test._hypothesis_internal_use_settings.max_examples for test in tests) >= 1000
