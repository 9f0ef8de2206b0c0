"""Every refusal is one exact line; every published cell composes to the published setting."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from alphatune import groups
from alphatune.compose.compose import config_of
from alphatune.errors import UserError
from alphatune.run.execute import main
from alphatune.settings import GROUP_SIZES

TASKS = ("dart, dart_partial, e2e, glue/cola, glue/mnli, glue/mrpc, glue/qnli, glue/qqp, glue/rte, glue/sst2, "
         "glue/stsb, mnli, own, samsum, toy, webnlg")  # fmt: skip


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+quant.zzz=1", "quant.zzz=1: no such key; keys of quant: format, q, group_size, solver, iterations, start, "
         "offset, calibration, rounds, damping"),
        ("quant.zzz=1", "quant.zzz=1: no such key; keys of quant: format, q, group_size, solver, iterations, start, "
         "offset, calibration, rounds, damping"),
        ("quant.q=99", "quant.q=99: must be a whole number from 1 to 8"),
        ("quant.q=0", "quant.q=0: must be a whole number from 1 to 8"),
        ("quant.q=abc", "quant.q=abc: must be a whole number from 1 to 8"),
        ("quant.q=null", "quant.q=null: must be a whole number from 1 to 8"),
        ("task=foo", f"task=foo: no such choice; must be one of: {TASKS}"),
        ("task=glue/foo", f"task=glue/foo: no such choice; must be one of: {TASKS}"),
        ("quant=null", "quant=null: no such choice; must be one of: bcq"),
        ("experiment=foo", "experiment=foo: no such choice; must be one of: smoke"),
        ("hparams.learning_rate=fast", "hparams.learning_rate=fast: must be a number from 0.0 to 10.0"),
        ("hparams.learning_rate=nan", "hparams.learning_rate=nan: must be a number from 0.0 to 10.0"),
        ("quant.solver=best", "quant.solver=best: must be one of: greedy, alternating, optimal, weighted, "
                             "hessian, gptq"),
        ("quant.start=zero", "quant.start=zero: must be one of: greedy, uniform, best"),
        ("quant.start=best", "quant.start=best: quant.solver=greedy improves on no start; use "
                             "quant.solver=alternating, weighted, hessian or gptq"),
        ("method=peqa quant.start=best", "quant.start=best: quant.format=uniform is a searched grid and has no start"),
        ("quant.group_size=-3", f"quant.group_size=-3: must be {GROUP_SIZES}"),
        ("quant.group_size=big", f"quant.group_size=big: must be {GROUP_SIZES}"),
        ("quant.solver=optimal",
         "quant.solver=optimal: exact only for quant.q=1 and 2, not quant.q=3; use alternating"),
        *((f"{key}={value}", f"{key}={value}: must be a whole number from 1 to 1000000000, or null (null: {null})")
          for key, null in (("data.train_limit", "all"), ("data.eval_limit", "all"),
                            ("trainer.max_steps", "as many as the epochs take")) for value in (0, -5)),
        ("trainer.saves=-1", "trainer.saves=-1: must be a whole number from 0 to 1000 (0: none)"),
        ("hparams.epochs=0", "hparams.epochs=0: must be a number from 0.001 to 1000.0"),
        ("hparams.adam_beta1=1.0", "hparams.adam_beta1=1.0: must be a number from 0.0 to below 1.0"),
        ("hparams.adam_beta2=1", "hparams.adam_beta2=1: must be a number from 0.0 to below 1.0"),
        ("model.tiny.heads=3",
         "model.tiny.heads=3: must divide model.tiny.width=128, e.g. 1, 2, 4, 8, 16, 32, 64"),
        ("trainer.evals=2.5", "trainer.evals=2.5: must be a whole number from 1 to 1000"),
        ("data.offline=1", "data.offline=1: must be true or false"),
        ("hparams.epochs='2'", "hparams.epochs='2': must be a number from 0.001 to 1000.0"),
        ("seed=-1", "seed=-1: must be a whole number from 0 to 4294967295"),
        ("task.kind=\n", "task.kind=\\n: must be one of: generation, classification, regression"),
        ("task.metrics=\n", "task.metrics='\\n': must be a list of words"),
        ("sead=1", "sead=1: no such key; keys of the config: task, data, model, method, quant, hparams, trainer, "
                   "decode, logger, runtime, seed"),
        ("task", "task: not of the form key=value; python -m alphatune.run --help lists all groups and keys"),
    ],
)  # fmt: skip
def test_a_bad_value_is_one_line(override: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(override.split(" ")) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.parametrize("override", [
    "data.train_limit=null", "data.eval_limit=1", "trainer.max_steps=1", "hparams.adam_beta1=0", "runtime.threads=0",
    "hparams.epochs=2", "hparams.learning_rate=1", "model.revision=1234567", "logger.group=7", "decode.beam=${quant.q}",
    "model.tiny.heads=16",
])  # fmt: skip
def test_a_good_value_is_taken(override: str) -> None:
    config_of([override])


@pytest.mark.parametrize("typed", ["hparams=webnlg", "+hparams=foo", "~hparams", "hparams={learning_rate: 1}"])
def test_the_row_of_a_cell_is_not_a_choice(typed: str) -> None:
    told = f"{typed}: looked up by task, model and method, so not a choice; set single values, e.g. "
    with pytest.raises(UserError, match=f"^{re.escape(told)}hparams.learning_rate=1e-3$"):
        config_of([typed])


def test_a_bad_job_of_a_sweep_is_refused_before_any_job_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", "quant.q=2,99"]) == 2
    assert capsys.readouterr().err == "error: quant.q=99: must be a whole number from 1 to 8\n"


def test_the_published_setting_needs_nothing_else_typed() -> None:
    config = config_of(["task=webnlg", "model=gpt2-medium", "method=alphatuning", "quant.q=3"])
    hp = config.hparams
    assert (hp.learning_rate, hp.weight_decay, hp.epochs, hp.batch_size, hp.warmup_steps) == (1e-3, 0.05, 5, 8, 0)
    assert hp.provenance == "paper, Table 10"
    assert (config.decode.beam, config.decode.no_repeat_ngram, config.decode.length_penalty) == (10, 4, 0.8)
    assert (config.quant.solver, config.quant.group_size) == ("greedy", None)


# learning rate, weight decay, length penalty: Table 10 and Table 9 of the paper
CELLS = {
    ("webnlg", "gpt2-medium", "full_ft", None): (1e-4, 0.01, 0.9),
    ("webnlg", "gpt2-medium", "lora", None): (5e-4, 0.01, 0.9),
    ("webnlg", "gpt2-medium", "alphatuning", 2): (1e-3, 0.0, 0.8),
    ("webnlg", "gpt2-large", "full_ft", None): (1e-4, 0.01, 0.9),
    ("webnlg", "gpt2-large", "lora", None): (2e-4, 0.02, 0.9),
    ("webnlg", "gpt2-large", "alphatuning", 3): (1e-4, 0.0, 0.8),
    ("webnlg", "gpt2-large", "alphatuning", 2): (1e-4, 0.0, 0.8),
    ("webnlg", "gpt2-large", "alphatuning", 1): (1e-3, 0.01, 0.8),
    ("dart", "gpt2-medium", "alphatuning", 3): (1e-3, 0.01, 0.8),
    ("dart", "gpt2-medium", "alphatuning", 2): (1e-3, 0.05, 0.8),
    ("dart", "gpt2-large", "alphatuning", 3): (5e-4, 0.1, 0.8),
    ("dart", "gpt2-large", "alphatuning", 2): (1e-3, 0.1, 0.8),
    ("e2e", "gpt2-medium", "full_ft", None): (1e-4, 0.02, 0.9),
    ("e2e", "gpt2-medium", "alphatuning", 3): (2e-3, 0.0, 0.8),
    ("e2e", "gpt2-medium", "alphatuning", 2): (5e-3, 0.1, 0.8),
    ("e2e", "gpt2-large", "full_ft", None): (5e-4, 0.01, 0.9),
    ("e2e", "gpt2-large", "alphatuning", 2): (1e-3, 0.1, 0.8),
    ("e2e", "gpt2-large", "alphatuning", 1): (1e-3, 0.1, 0.8),
}


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_published_cells(cell: tuple[str, str, str, int | None]) -> None:
    task, model, method, q = cell
    config = config_of([f"task={task}", f"model={model}", f"method={method}", *([f"quant.q={q}"] if q else [])])
    got = (config.hparams.learning_rate, config.hparams.weight_decay, config.decode.length_penalty)
    assert got == CELLS[cell]
    assert config.hparams.epochs == 5
    assert config.hparams.provenance == "paper, Table 10"


@pytest.mark.parametrize(
    ("ptq", "trained"), [("ptq_full_ft", "full_ft"), ("ptq_w_plus_lora", "lora"), ("ptq_merged_lora", "lora")]
)
def test_ptq_rows_adapt_as_the_method_they_quantise(ptq: str, trained: str) -> None:
    for task, model in product(("webnlg", "e2e", "dart"), ("gpt2-medium", "gpt2-large")):
        cell = [f"task={task}", f"model={model}"]
        one, other = config_of([*cell, f"method={ptq}"]), config_of([*cell, f"method={trained}"])
        assert one.hparams == other.hparams and one.method.lora == other.method.lora
        assert one.quant.solver == "alternating"


def test_a_q_without_published_values_says_so() -> None:
    config = config_of(["task=webnlg", "model=gpt2-medium", "quant.q=4"])
    assert config.hparams.provenance == "no published values for this q: those of q=3 (Table 10)"


def test_the_command_line_wins_over_the_published_setting() -> None:
    config = config_of(["task=webnlg", "model=gpt2-medium", "hparams.learning_rate=0.5"])
    assert config.hparams.learning_rate == 0.5


def test_every_choice_of_every_group_composes() -> None:
    for group in ("task", "model", "method", "trainer", "decode", "logger"):
        for choice in groups.choices(group):
            config_of([f"{group}={choice}"])


def test_the_config_of_a_sweep_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    from alphatune.run.execute import main

    assert main(["-m", "--cfg", "job", "method=full_ft,lora"]) == 2
    assert "--cfg shows the config of one run: leave out -m" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--help"], ["--cfg", "job", "task=webnlg", "model=gpt2-medium"]])
def test_help_and_cfg_answer_without_importing_torch(flags: list[str]) -> None:
    code = (
        "import sys\nfrom alphatune.run.execute import main\nsys.argv = ['alphatune', *sys.argv[1:]]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "${" not in done.stdout
    assert "alphatuning" in done.stdout


def test_help_lists_the_choices_and_shows_the_values_that_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "\ndecode: beam, stock\n" in shown and f"\ntask: {TASKS}\n" in shown
    assert "\nhparams: " not in shown  # rows are not chosen
    assert "\n  learning_rate: 0.01\n" in shown  # the row of the miniature


def test_missing_files_and_weights_are_one_message(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("ALPHATUNE_CACHE", str(tmp_path))
    monkeypatch.delenv("ALPHATUNE_DATA", raising=False)
    assert main(["task=webnlg", "model=gpt2-medium", "data.offline=true"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and message.startswith(
        "error: task=webnlg: its data files are missing; looked in: "
    )
    for part in ("$ALPHATUNE_DATA", "make data TASK=webnlg", "openai-community/gpt2-medium", "task=toy model=tiny"):
        assert part in message


def test_a_wrong_model_folder_is_one_line(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"model.name_or_path={tmp_path}"]) == 2
    assert "has no config.json, so it is not a transformers checkpoint" in capsys.readouterr().err
    assert main(["model.name_or_path=./nowhere"]) == 2
    assert "there is no folder ./nowhere" in capsys.readouterr().err


def test_a_home_folder_behind_an_equals_sign_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config_of(["model.name_or_path=~/models/mine"]).model.name_or_path == str(tmp_path / "models" / "mine")
    assert config_of(["model.name_or_path=~/models/mine"]).model.name == "mine"
