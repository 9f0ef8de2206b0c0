"""Code that decides results and the number in artefact keys change together, or the change is shown harmless."""

from __future__ import annotations

import ast
import json
import sys

import pytest
from conftest import ROOT

from alphatune.versions import VERSIONS

sys.path.insert(0, str(ROOT / "tests" / "goldens"))
import stages


@pytest.mark.parametrize("stage", VERSIONS)
def test_the_code_of_a_stage_is_that_of_its_number(stage: str) -> None:
    stored = json.loads(stages.STORED.read_text())[stage]
    now = stages.files_of(stage)
    assert stored["number"] == VERSIONS[stage], f"{stage} has a new number: run `make stages`"
    changed = [name for name, code in now.items() if code not in stored["files"].values()]
    gone = set(stored["files"].values()) - set(now.values())
    assert not changed and not gone, (
        f"the code behind {stage} changed ({', '.join(changed) or 'some is gone'}): if results change, raise its "
        "number in alphatune/versions.py; then `make stages`"
    )


def test_every_stage_has_its_own_code() -> None:
    assert set(stages.ENTRIES) == set(VERSIONS)
    assert {"quant.bcq", "quant.calibrated", "packed.walk"} <= set(stages.files_of("quantize"))
    assert {"learn.decode", "learn.batches", "packed.linear"} <= set(stages.files_of("decode"))
    assert {"learn.loss", "hf.scales", "hf.lora"} <= set(stages.files_of("adapt"))
    assert {"metrics.ter", "metrics.meteor", "metrics.outside.java"} <= set(stages.files_of("score"))


def test_only_what_runs_counts() -> None:
    said = ast.parse('"""One."""\nimport os\ndef f(x):\n    """Two."""\n    return x  # three\n')
    bare = ast.parse("def f(x):\n    return x\n")
    other = ast.parse("def f(x):\n    return -x\n")
    assert stages._code(said) == stages._code(bare) != stages._code(other)
