"""Runs that are killed anywhere: what they leave continues to the bytes of an unbroken run, and nothing piles up."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SMALL

from alphatune.compose.compose import config_of
from alphatune.groups import choices

sys.path.insert(0, str(Path(__file__).parent))
from runs import counted_run, finish, left_over, results, start, store_for

GIVEN = [*SMALL, "experiment=smoke", "runtime.threads=1", "data.eval_limit=4", "data.train_limit=24",
         "decode.max_new_tokens=6", "decode.beam=2", "decode.batch_size=2", "trainer.max_steps=8", "trainer.evals=4",
         "trainer.saves=3", "runtime.progress=false", "runtime.device=cpu"]  # fmt: skip


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store's folder with the small backbone."""
    from alphatune.learn import models
    from alphatune.store import Store

    root = tmp_path_factory.mktemp("backbone")
    models.source_of(config_of(GIVEN), Store(root))
    return root / "backbone"


class Whole:
    """An unbroken run of a method: its results, and how many points it has."""

    def __init__(self, given: list[str], folder: Path, backbone: Path) -> None:
        self.given, self.backbone, self.folder = given, backbone, folder
        here = [*given, *store_for(folder, backbone)]
        self.points = counted_run(here, folder / "log")
        self.results = results(folder)
        assert left_over(folder) == []

    def broken(self, folder: Path, kill: Callable[[list[str]], None]) -> str:
        """Kill a run, run it again, and compare; returns what the second one says."""
        here = [*self.given, *store_for(folder, self.backbone)]
        kill(here)
        log = folder / "again"
        assert finish(start(here, log)) == 0, log.read_text()
        assert results(folder) == self.results
        assert left_over(folder) == []
        return log.read_text()


@pytest.fixture(scope="session")
def whole(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Whole]:
    made: dict[str, Whole] = {}

    def of(method: str) -> Whole:
        if method == "qlora":
            pytest.importorskip("bitsandbytes")
        if method not in made:
            given = [*GIVEN, f"method={method}", "quant.q=2"]
            made[method] = Whole(given, tmp_path_factory.mktemp(f"whole-{method}"), backbone)
        return made[method]

    return of


def _at(folder: Path, point: tuple[int, str]) -> Callable[[list[str]], None]:
    def kill(here: list[str]) -> None:
        assert finish(start(here, folder / "first", point)) in (-signal.SIGKILL, 0)

    return kill


def _finished(folder: Path) -> set[str]:
    """The stages that are whole, as log lines name them; a sealed folder that was not renamed yet is none."""
    found = {path.parent for path in (folder / "store").glob("*/*/manifest.json")}
    return {path.parent.name for path in found if not path.name.startswith(".")} - {"backbone"}


def _continues(unbroken: Whole, folder: Path, point: tuple[int, str]) -> None:
    """One kill; stages that were finished are not made again."""
    before: set[str] = set()

    def kill(here: list[str]) -> None:
        _at(folder, point)(here)
        before.update(_finished(folder))

    log = unbroken.broken(folder, kill)
    again = {line.split()[0] for line in log.splitlines() if re.match(r"\w+ +made ", line)}
    assert not again & before, log


@pytest.mark.parametrize("share", [0.15, 0.5, 0.75, 0.95])
def test_a_run_killed_at_a_point_of_the_protocol_continues(
    share: float, whole: Callable[[str], Whole], tmp_path: Path
) -> None:
    unbroken = whole("alphatuning")
    _continues(unbroken, tmp_path, (max(1, round(share * unbroken.points)), "after"))


METHODS = choices("method")


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("method", METHODS)
def test_runs_of_every_method_killed_at_every_kind_of_point_continue(
    method: str, when: str, whole: Callable[[str], Whole], tmp_path: Path
) -> None:
    """Four points of each run and side, spread evenly: with both sides and ten methods 80 kills."""
    unbroken, shift = whole(method), {"before": 0.25, "after": 0.75}[when]
    for i in range(4):
        folder = tmp_path / str(i)
        folder.mkdir()
        _continues(unbroken, folder, (max(1, round((i + shift) / 4 * unbroken.points)), when))
        shutil.rmtree(folder)


@pytest.mark.slow
def test_every_single_point_of_one_run(whole: Callable[[str], Whole], tmp_path: Path) -> None:
    unbroken = whole("lora")
    for number in range(1, unbroken.points + 1):
        folder = tmp_path / str(number)
        folder.mkdir()
        _continues(unbroken, folder, (number, "before"))
        shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("method", METHODS)
def test_runs_killed_several_times_at_random_continue(
    method: str, how: int, whole: Callable[[str], Whole], tmp_path: Path
) -> None:
    unbroken, draw = whole(method), random.Random(f"{method} {how}")

    def kill(here: list[str]) -> None:
        for _ in range(3):
            process = start(here, tmp_path / "first")
            process.join(draw.uniform(0.05, 3.0))
            if process.exitcode is None:
                os.kill(process.pid, how)
            process.join()

    unbroken.broken(tmp_path, kill)


@pytest.mark.slow
def test_two_processes_on_one_run_and_four_seeds_at_once(whole: Callable[[str], Whole], tmp_path: Path) -> None:
    """One of two processes on the same run is killed; the other ends as if alone. Seeds share a quantisation."""
    unbroken = whole("alphatuning")
    here = [*unbroken.given, *store_for(tmp_path, unbroken.backbone)]
    first, second = start(here, tmp_path / "first"), start(here, tmp_path / "second")
    time.sleep(1.0)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    assert finish(second) == 0
    assert results(tmp_path) == unbroken.results and left_over(tmp_path) == []
    many = [start([*here, f"seed={seed}"], tmp_path / f"seed{seed}") for seed in range(4)]
    os.kill(many[3].pid, signal.SIGKILL)
    assert [finish(process) for process in many][:3] == [0, 0, 0]
    assert finish(start([*here, "seed=3"], tmp_path / "seed3")) == 0
    assert len(list((tmp_path / "store" / "quantize").glob("*/manifest.json"))) == 1
    assert len(list((tmp_path / "records").rglob("*.json"))) == 4 and left_over(tmp_path) == []


@pytest.mark.parametrize("stage", ["quantize", "adapt", "decode", "score", "evaluate"])
def test_an_artefact_that_went_missing_is_made_again_while_later_ones_are_whole(
    stage: str, whole: Callable[[str], Whole], tmp_path: Path
) -> None:
    unbroken = whole("alphatuning")

    def lose(here: list[str]) -> None:
        shutil.copytree(unbroken.folder, tmp_path, dirs_exist_ok=True)
        shutil.rmtree(tmp_path / "store" / stage)
        shutil.rmtree(tmp_path / "records")

    unbroken.broken(tmp_path, lose)


@pytest.mark.slow
@pytest.mark.parametrize("own_process", ["true", "false"])
def test_a_table_that_is_told_to_end_ends_its_cells(own_process: str, backbone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "experiments"
    folder.mkdir()
    (folder / "small.yaml").write_text(
        f"title: Small\nseeds: [0, 1]\nbase: [task=toy, model=tiny]\nown_process: {own_process}\n"
        "columns: [{key: bleu_all, label: BLEU}]\n"
        "rows: [{id: tiny/lora, label: LoRA, set: [method=lora]}, {id: tiny/ft, label: FT, set: [method=full_ft]}]\n"
    )
    given = [*GIVEN, "trainer.max_steps=4000", *store_for(tmp_path, backbone)]
    script = "from pathlib import Path; from alphatune.tables import experiment\n"
    script += f"experiment.FOLDER = Path({str(folder)!r})\n"
    script += "import sys; from alphatune.tools import table; sys.exit(table.main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "small", "--jobs", "2", "--out", str(tmp_path / "out")]
    command += [part for o in given if o != "experiment=smoke" for part in ("--set", o)]
    process = subprocess.Popen(command, start_new_session=True)
    deadline = time.monotonic() + 300
    while len(list((tmp_path / "store" / "adapt").glob("*.maker"))) < 2 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.2)
    cells = [int(p.read_text().split()[0]) for p in (tmp_path / "store" / "adapt").glob("*.maker")]
    assert len(cells) == 2
    process.terminate()
    assert process.wait(60) == 143
    for cell in cells:
        with pytest.raises(ProcessLookupError):
            os.kill(cell, 0)


def test_a_prediction_with_a_strange_line_end_is_read_back(tmp_path: Path) -> None:
    """U+2028 and the like end lines for str.splitlines, not for a file of predictions."""
    from alphatune.learn.partial import Partial

    texts = ["a\u2028b", "c\x85d", "e\x1cf", "g\rh"]
    partial = Partial(tmp_path / "predictions.jsonl", [f"id\u2029{i}" for i in range(4)])
    with partial.adding() as add:
        for i, text in enumerate(texts):
            add({"index": i, "id": f"id\u2029{i}", "prediction": text})
    assert [partial.read()[i]["prediction"] for i in range(4)] == texts


@pytest.mark.parametrize("damage", ["torn", "flipped", "foreign", "swapped", "emptied", "other id"])
def test_damaged_partial_predictions_are_left_out(damage: str, tmp_path: Path) -> None:
    from alphatune.learn.partial import Partial

    def filled(folder: Path, word: str) -> Partial:
        folder.mkdir()
        made = Partial(folder / "predictions.jsonl", ["a", "b", "c"])
        with made.adding() as add:
            for i, name in enumerate("abc"):
                add({"index": i, "id": name, "prediction": f"{word} {i}"})
        return made

    ours, theirs = filled(tmp_path / "ours", "ours"), filled(tmp_path / "theirs", "theirs")
    content, expected = ours.path.read_bytes(), {0, 1, 2}
    if damage == "torn":
        content, expected = content[:-3], {0, 1}
    elif damage == "flipped":
        content, expected = content.replace(b"ours 1", b"ours 3"), {0, 2}
    elif damage == "foreign":
        content, expected = theirs.path.read_bytes(), set()
    elif damage == "swapped":
        lines = content.split(b"\n")
        content = b"\n".join([lines[2], lines[0], lines[1], b""])
    elif damage == "emptied":
        content, expected = b"", set()
    else:
        ours = Partial(ours.path, ["a", "x", "c"])
        expected = {0, 2}
    ours.path.write_bytes(content)
    assert {i: e["prediction"] for i, e in ours.read().items()} == {i: f"ours {i}" for i in expected}
    assert ours.read().keys() == expected  # and what was left out is gone
