"""The `alphatune` command: quantise, generate, completion, and mistakes told in one line."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from toy_checkpoint import logits, write_adapter, write_dense
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import alphatune
from alphatune.__main__ import main, parsers
from alphatune.errors import UserError
from alphatune.hf import checkpoints
from alphatune.packed.linear import packed_layers
from alphatune.tools import completion

PROMPTS = ["The sky is", "Blue", "Rain in the north and"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dense/ and packed/ with its adapters packed/a and packed/b."""
    folder = tmp_path_factory.mktemp("cli")
    write_dense(folder / "dense")
    assert main(["quantize", str(folder / "dense"), str(folder / "packed"), "--bits", "2"]) == 0
    for seed, name in enumerate("ab"):
        write_adapter(folder / "packed", folder / "packed" / name, seed)
    return folder


UNSEALED = shutil.ignore_patterns("checksums.json")  # a folder as others have saved it


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command prints, which must succeed."""
    status = main([str(a) for a in arguments])
    found = capsys.readouterr()
    assert status == 0, found.err
    return found.out


def wrong(capsys: pytest.CaptureFixture[str], match: str, *arguments: object) -> None:
    """A command must fail with one line that says `match`."""
    assert main([str(a) for a in arguments]) == 2
    found = capsys.readouterr()
    assert found.err.startswith("error: ") and match in found.err and found.err.count("\n") == 1, found.err
    assert not found.out


# --- quantize


def test_quantising_writes_what_the_library_writes(home: Path, capsys: Any) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(home / "packed")
    expected = AutoModelForCausalLM.from_pretrained(home / "dense")
    alphatune.quantize_model(expected, alphatune.BCQConfig(2), progress=False)
    assert torch.equal(logits(loaded), logits(expected))
    assert AutoTokenizer.from_pretrained(home / "packed")("sun").input_ids
    card = (home / "packed" / "README.md").read_text()
    assert "# dense, 2 bits" in card and str(home) not in card and "import alphatune" in card
    assert not list(home.glob(".*"))  # no half-written folder


def test_the_summary_has_layers_bits_bytes_and_error(home: Path, tmp_path: Path, capsys: Any) -> None:
    out = run(capsys, "quantize", home / "dense", tmp_path / "out", "--bits", 3, "--group-size", "0.5h",
              "--solver", "alternating", "--modules", "c_attn,c_fc", "--dtype", "bfloat16")  # fmt: skip
    assert "4 layers, 3-bit binary codes (alternating), one scale per plane for every 32 weights" in out
    assert "times smaller" in out and "mean relative error of a layer's weights: 0." in out
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.dtype == torch.bfloat16 and len(packed_layers(loaded)) == 4


def test_other_formats_tasks_and_solvers(home: Path, tmp_path: Path, capsys: Any) -> None:
    run(capsys, "quantize", home / "dense", tmp_path / "u", "--format", "uniform", "--bits", 4)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "u").config.quantization_config.bits == 4
    assert main(["quantize", str(home / "dense"), str(tmp_path / "c"), "--task", "classification"]) == 0
    assert "head is new and random" in capsys.readouterr().err
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "c")
    (tmp_path / "texts.txt").write_text("sun in the north\nrain in the south\n")
    gptq = ("--solver", "gptq", "--offset", "--calibration", tmp_path / "texts.txt")
    out = run(capsys, "quantize", home / "dense", tmp_path / "g", *gptq)
    assert "8 layers" in out and "error of a layer's output" in out
    out = run(capsys, "quantize", home / "dense", tmp_path / "m", *gptq, "--modules", "c_attn")
    assert "2 layers" in out and "error of a layer's output" in out


def test_calibration_texts_with_tokens_that_the_model_does_not_have(home: Path, tmp_path: Path, capsys: Any) -> None:
    smaller = tmp_path / "smaller"
    shutil.copytree(home / "dense", smaller)
    model = AutoModelForCausalLM.from_pretrained(smaller)
    model.resize_token_embeddings(8)
    model.save_pretrained(smaller)
    (tmp_path / "texts.txt").write_text("sun in the north\n")
    gptq = ("--solver", "gptq", "--calibration", tmp_path / "texts.txt")
    wrong(capsys, "but the model has 8: it is that of another model", "quantize", smaller, tmp_path / "g", *gptq)


def test_output_folders_are_not_lost(home: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    quantize = ("quantize", home / "dense", out)
    wrong(capsys, "is not empty: give another folder, or --overwrite", *quantize)
    wrong(capsys, "holds no checkpoint: --overwrite does not remove", *quantize, "--overwrite")
    wrong(capsys, "is a file", "quantize", home / "dense", out / "notes.txt")
    wrong(capsys, "holds what is read", "quantize", home / "dense", home / "dense", "--overwrite")
    (out / "model.safetensors").write_bytes(b"old")
    wrong(capsys, "also holds notes.txt, which is no part of a checkpoint", *quantize, "--overwrite")
    (out / "notes.txt").unlink()
    write_adapter(home / "packed", out / "task-a", 1)
    capsys.readouterr()
    wrong(capsys, "also holds task-a, which is no part of a checkpoint", *quantize, "--overwrite")
    assert (out / "task-a" / "adapter_model.safetensors").is_file()
    shutil.rmtree(out / "task-a")
    (out / "README.md").write_text("old")

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "copy_tokenizer", interrupted)  # after the weights are written
        assert main([*map(str, quantize), "--overwrite"]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert (out / "model.safetensors").read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["out"]
    run(capsys, *quantize, "--overwrite")
    assert (out / "README.md").read_text() != "old" and (out / "config.json").is_file()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    run(capsys, *quantize, "--overwrite")  # all that it writes may be replaced
    wrong(capsys, "cannot be written to", "quantize", home / "dense", out / "config.json" / "x")
    wrong(capsys, "cannot be written to", "quantize", home / "dense", "/proc/x")


def test_mistakes_of_quantising(home: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    dense, out = home / "dense", tmp_path / "out"
    wrong(capsys, "there is no folder", "quantize", tmp_path / "none", out)
    wrong(capsys, "there is no folder tiny", "quantize", "tiny", out)
    wrong(capsys, "quantised already", "quantize", home / "packed", out)
    wrong(capsys, "invalid choice: 9", "quantize", dense, out, "--bits", 9)
    wrong(capsys, "neither a number of weights nor h", "quantize", dense, out, "--group-size", "rows")
    wrong(capsys, "group_size=65", "quantize", dense, out, "--group-size", 65)
    wrong(capsys, "belong to --format bcq", "quantize", dense, out, "--format", "uniform", "--solver", "greedy")
    wrong(capsys, "only for bits=1 and 2", "quantize", dense, out, "--solver", "optimal")
    wrong(capsys, "solver=greedy improves on no start", "quantize", dense, out, "--start", "best")
    wrong(capsys, "belong to --format bcq", "quantize", dense, out, "--format", "uniform", "--start", "best")
    wrong(capsys, "needs --calibration", "quantize", dense, out, "--solver", "gptq")
    wrong(capsys, "--calibration: only the solvers", "quantize", dense, out, "--calibration", "x")
    wrong(capsys, "no linear layer inside the blocks is called lm_head", "quantize", dense, out, "--modules", "lm_head")
    wrong(capsys, "--revision x: belongs to hub ids", "quantize", dense, out, "--revision", "x")
    wrong(capsys, "no command given")
    started = time.monotonic()
    wrong(capsys, "neither a local folder nor in the cache", "quantize", "nobody/nothing", out)
    assert time.monotonic() - started < 10
    assert not out.exists()


@pytest.mark.parametrize("option, value, wanted", [
    ("--beam", 0, "a whole number from 1 to 1024"), ("--max-new-tokens", 5000, "a whole number from 1 to 4096"),
    ("--length-penalty", "nan", "a number from -10.0 to 10.0"),
    ("--no-repeat-ngram", -1, "a whole number from 0 to 64 (0: off)"),
    ("--batch-size", 0, "a whole number from 1 to 65536"),
])  # fmt: skip
def test_decoding_has_the_ranges_of_a_run(option: str, value: Any, wanted: str, capsys: Any) -> None:
    wrong(capsys, f"{option} {value}: must be {wanted}", "generate", "nowhere", "--prompt", "x", option, value)


def test_damaged_and_foreign_checkpoints(home: Path, tmp_path: Path, capsys: Any) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(home / "dense", tmp_path / name))

    folder, out = copy("cut"), tmp_path / "out"
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-9])
    wrong(capsys, "cut: cannot be loaded", "quantize", folder, out)
    folder = copy("pickle")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    wrong(capsys, "pickle files can run code and are not read", "quantize", folder, out)
    folder = copy("layers")  # the config promises more than the file has
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "n_layer": 3}))
    wrong(capsys, "the weights lack transformer.h.2", "quantize", folder, out)
    (folder / "config.json").write_text("{")
    wrong(capsys, "config.json: not JSON", "quantize", folder, out)
    (folder / "config.json").unlink()
    wrong(capsys, "has no config.json", "quantize", folder, out)
    wrong(capsys, "is an adapter, not a model", "generate", home / "packed" / "a", "--prompt", "x")


# --- generate


def test_checkpoints_and_adapters_that_do_not_fit(home: Path, tmp_path: Path, capsys: Any) -> None:
    for name in ("dense", "packed"):
        folder = Path(shutil.copytree(home / name, tmp_path / name, ignore=UNSEALED))
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"n_layer": 1}))
        wrong(capsys, "config.json belongs to another model", "generate", folder, "--prompt", "x")
    wrong(capsys, "config.json belongs to another model", "quantize", tmp_path / "dense", tmp_path / "out")

    lora = write_adapter(home / "packed", tmp_path / "lora", 1, lora=True)
    generate = ("generate", home / "packed", "--prompt", "x", "--max-new-tokens", 2, "--adapter", lora)
    run(capsys, *generate)
    whole = load_file(lora / "adapter_model.safetensors")
    last = max(name for name in whole if "lora_B" in name)
    save_file({n: t for n, t in whole.items() if n != last}, lora / "adapter_model.safetensors")
    wrong(capsys, f"the adapter's file lacks {last} (1 in all)", *generate)
    save_file(whole | {last.replace("h.1", "h.7"): whole[last].clone()}, lora / "adapter_model.safetensors")
    wrong(capsys, "the model has no place for base_model.model.transformer.h.7", *generate)

    save_file(whole, lora / "adapter_model.safetensors")
    wrong(capsys, "must be of one type, not", *generate, "--adapter", home / "packed" / "a")
    settings = json.loads((lora / "adapter_config.json").read_text())
    for value in ("NOSUCH", 3, None, ["LORA"]):
        (lora / "adapter_config.json").write_text(json.dumps(settings | {"peft_type": value}))
        wrong(capsys, f"adapter_config.json: peft_type={value} is none that peft knows", *generate)
    for name, value in (("r", "x"), ("target_modules", 3), ("rank_pattern", 3)):
        (lora / "adapter_config.json").write_text(json.dumps(settings | {name: value}))
        wrong(capsys, "adapter_config.json: holds a damaged setting", *generate)

    narrow = Path(shutil.copytree(home / "dense", tmp_path / "narrow"))
    config = json.loads((narrow / "config.json").read_text())
    (narrow / "config.json").write_text(json.dumps(config | {"n_embd": 32}))
    wrong(capsys, "its weights have other shapes than config.json implies", "generate", narrow, "--prompt", "x")
    cut = Path(shutil.copytree(home / "packed", tmp_path / "cut", ignore=UNSEALED))
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:-9])
    wrong(capsys, f"{cut}: model.safetensors: not a whole", "generate", cut, "--prompt", "x")

    nan = Path(shutil.copytree(home / "packed", tmp_path / "nan", ignore=UNSEALED))
    stored = load_file(nan / "model.safetensors")
    stored["transformer.h.0.mlp.c_fc.alpha"] *= float("nan")
    del stored["transformer.h.0.attn.c_attn.weight"]  # the list of checksums
    save_file(stored, nan / "model.safetensors", {"format": "pt"})
    wrong(capsys, "mlp.c_fc.alpha holds values that are not finite", "export", nan, tmp_path / "out", "--to", "dense")


def test_several_adapters_on_one_base(home: Path, capsys: Any, monkeypatch: Any) -> None:
    loads = []
    real = checkpoints.load
    monkeypatch.setattr(checkpoints, "load", lambda *a: loads.append(a) or real(*a))
    folders = [home / "packed" / name for name in "ab"]
    options = [x for folder in folders for x in ("--adapter", folder)] + [x for p in PROMPTS for x in ("--prompt", p)]
    out = json.loads(run(capsys, "generate", home / "packed", *options, "--max-new-tokens", 8, "--beam", 3, "--json"))
    assert len(loads) == 1
    tokenizer = AutoTokenizer.from_pretrained(home / "packed")
    for folder, result in zip(folders, out["results"], strict=True):
        assert result["adapter"] == folder.name and 0 <= result["switch_ms"] < 1000
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(home / "packed"), folder).eval()
        for prompt, output in zip(PROMPTS, result["outputs"], strict=True):
            ids = tokenizer(prompt, return_tensors="pt").input_ids
            row = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), num_beams=3, do_sample=False,
                                 max_new_tokens=8, pad_token_id=0)[0, ids.shape[1]:]  # fmt: skip
            assert output["prompt"] == prompt and output["text"] == tokenizer.decode(row, skip_special_tokens=True)
    texts = [[o["text"] for o in r["outputs"]] for r in out["results"]]
    assert texts[0] != texts[1]


def test_prompts_from_files_and_standard_input(home: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    (tmp_path / "p.txt").write_text("\n".join(PROMPTS))
    (tmp_path / "p.jsonl").write_text("\n".join(json.dumps({"prompt": p}) for p in PROMPTS))
    command = ("generate", home / "packed", "--max-new-tokens", 4, "--beam", 1)
    lines = run(capsys, *command, "--prompts", tmp_path / "p.txt")
    assert [line[2:] for line in lines.splitlines() if line.startswith("> ")] == PROMPTS
    assert run(capsys, *command, "--prompts", tmp_path / "p.jsonl", "--batch-size", 1) == lines
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(PROMPTS)))
    assert run(capsys, *command) == lines
    told = run(capsys, *command, "--prompt", "Sun", "--adapter", home / "packed" / "a")
    assert told.startswith("== a (switched in ") and "> Sun\n" in told
    sampled = [run(capsys, *command, "--prompt", "Sun", "--sample", 1.0, "--seed", seed) for seed in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]


def test_mistakes_of_generating(home: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    packed = home / "packed"
    (tmp_path / "p.jsonl").write_text('{"text": "x"}\n')
    (tmp_path / "empty.txt").write_text("\n")
    wrong(capsys, "p.jsonl, line 1", "generate", packed, "--prompts", tmp_path / "p.jsonl")
    wrong(capsys, "no prompts", "generate", packed, "--prompts", tmp_path / "empty.txt")
    wrong(capsys, "exclude each other", "generate", packed, "--prompts", tmp_path / "empty.txt", "--prompt", "x")
    wrong(capsys, "64 positions", "generate", packed, "--prompt", "x")
    short = ("--prompt", "x", "--max-new-tokens", 2)
    wrong(capsys, "has no adapter_config.json", "generate", packed, "--adapter", home / "dense", *short)
    wrong(capsys, "no packed layer", "generate", home / "dense", "--adapter", packed / "a", *short)
    run(capsys, "quantize", home / "dense", tmp_path / "other", "--bits", 3)
    wrong(capsys, "belongs to another packed base", "generate", tmp_path / "other", "--adapter", packed / "a", *short)


# --- the command itself


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from alphatune.__main__ import parsers, usage; usage(), parsers(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_bash_completes(tmp_path: Path) -> None:
    (tmp_path / "c.bash").write_text(completion.script(parsers(), "bash"))

    def complete(*words: str) -> list[str]:
        given = " ".join(f"'{w}'" for w in words)
        code = (f"source c.bash; complete -p alphatune >/dev/null || exit 1; COMP_WORDS=({given}); "
                f"COMP_CWORD={len(words) - 1}; _alphatune; printf '%s\\n' \"${{COMPREPLY[@]}}\"")  # fmt: skip
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
        assert not done.stderr
        return done.stdout.split()

    assert complete("alphatune", "q") == ["quantize"] and complete("alphatune", "e") == ["export"]
    assert complete("alphatune", "quantize", "--so") == ["--solver"]
    assert complete("alphatune", "quantize", "m", "--solver", "a") == ["alternating"]
    assert complete("alphatune", "export", "d", "o", "--to", "") == ["dense", "lut-gemm"]
    assert complete("alphatune", "inspect", "c.") == ["c.bash"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_read_their_script(shell: str, tmp_path: Path, capsys: Any) -> None:
    text = run(capsys, "--print-completion", shell)
    assert "quantize" in text and "lut-gemm" in text
    (tmp_path / "script").write_text(text)
    if shutil.which(shell):
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


def test_cards_come_from_the_card_module(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "r.json").write_text("{}")
    assert main(["card", str(tmp_path / "r.json")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.slow
def test_a_cached_hub_model_is_found_without_the_network(home: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from huggingface_hub import constants

    snapshot = tmp_path / "models--someone--small" / "snapshots" / ("a" * 40)
    shutil.copytree(home / "dense", snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("a" * 40)
    code = "import sys; from alphatune.hf import checkpoints; print(checkpoints.local('someone/small'))"
    env = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.strip() == str(snapshot)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "none"))
    with pytest.raises(UserError, match="network is switched off"):
        checkpoints.local("someone/small")
