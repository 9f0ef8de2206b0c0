"""Beam search against transformers' own, against a slow reference, and against exhaustive search.

Models are tiny and random, their weights scaled up so that scores are far apart: rounding then decides nothing.
"""

from __future__ import annotations

import itertools
import math
import os
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from alphatune.config import Decode
from alphatune.errors import UserError
from alphatune.learn import decode
from alphatune.learn.decode import Hypothesis, beam_search, cut_text

POSITIONS = 64
KINDS = ["gpt2", "opt", "llama", "mistral"]
STOCK = Decode(no_repeat_scope="all", no_repeat_before_softmax=False, candidates="double", stopping="bound")
EARLY_STOPPING = {"bound": False, "exact": "never", "first": True}


@cache
def tiny(kind: str, vocab: int = 61, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """A random model of two layers; Llama's heads share keys, Mistral's window is shorter than the sequences."""
    torch.manual_seed(seed)
    width, ids = {"hidden_size": 16}, {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    depth = {"num_hidden_layers": 2, "num_attention_heads": 4}
    rotary = {**width, **depth, "intermediate_size": 32, "num_key_value_heads": 2}
    shapes: dict[str, dict[str, Any]] = {
        "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "initializer_range": 0.5},
        "opt": {**width, **depth, "word_embed_proj_dim": 16, "ffn_dim": 32, "init_std": 0.5},
        "llama": {**rotary, "initializer_range": 0.7},
        "mistral": {**rotary, "initializer_range": 0.7, "sliding_window": 5},
    }
    config = AutoConfig.for_model(kind, vocab_size=vocab, max_position_embeddings=POSITIONS, **shapes[kind], **ids)
    return AutoModelForCausalLM.from_config(config).to(dtype).eval()


def draw_prompts(n: int, seed: int = 0, vocab: int = 61, longest: int = 14) -> list[list[int]]:
    """Random prompts without token 0, of repetitive tokens, so that n-grams recur."""
    rng = random.Random(seed)
    return [rng.choices(rng.sample(range(1, vocab), min(5, vocab - 1)), k=rng.randint(1, longest)) for _ in range(n)]


def stock_generate(model: Any, prompts: Sequence[Sequence[int]], s: Decode, ends: list[int]) -> list[list[int]]:
    """What `transformers.generate` continues a left-padded batch with, up to the first end token."""
    width = max(map(len, prompts))
    with torch.inference_mode():
        out = model.generate(
            torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts]),
            attention_mask=torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts]),
            num_beams=s.beam,
            do_sample=False,
            no_repeat_ngram_size=s.no_repeat_ngram,
            length_penalty=s.length_penalty,
            early_stopping=EARLY_STOPPING[s.stopping],
            max_new_tokens=s.max_new_tokens,
            eos_token_id=ends,
            pad_token_id=0,
        )
    return [list(itertools.takewhile(lambda t: t not in ends, row)) for row in out[:, width:].tolist()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("beam", "penalty", "ngram", "stopping", "ends"),
    [
        (1, 0.8, 2, "bound", [0]),
        (2, 0.0, 3, "bound", [0, 7]),
        (4, 0.8, 2, "bound", [0]),
        (4, 0.8, 2, "exact", [0]),
        (4, 0.8, 2, "first", [0]),
        (5, -1.0, 0, "exact", [0, 3, 5]),
        (5, 2.0, 4, "bound", [0, 7]),
        (5, 2.0, 4, "exact", [0, 7]),
        (6, 1.0, 0, "first", [0, 7, 8]),
        (10, 0.8, 4, "bound", [0]),
    ],
)
def test_stock_rules_give_the_tokens_of_generate(
    kind: str, beam: int, penalty: float, ngram: int, stopping: str, ends: list[int]
) -> None:
    settings = replace(STOCK, beam=beam, length_penalty=penalty, no_repeat_ngram=ngram, stopping=stopping)
    settings = replace(settings, max_new_tokens=8, batch_size=12)
    prompts = draw_prompts(24, seed=beam)
    found = beam_search(tiny(kind), prompts, settings, end_tokens=ends, pad_token=0)
    assert [h.tokens for h in found] == stock_generate(tiny(kind), prompts, settings, ends)


@pytest.mark.parametrize("kind", ["gpt2", "opt"])
def test_stock_rules_differ_where_those_of_generate_do(kind: str) -> None:
    """Frequent ends and a strong penalty: the stopping rules part, and the number of end tokens widens the search."""
    model, prompts, ends = tiny(kind, vocab=8), draw_prompts(24, seed=3, vocab=8), [0, 1, 2]
    found = {}
    for stopping in EARLY_STOPPING:
        settings = replace(STOCK, beam=3, length_penalty=2.0, no_repeat_ngram=3, max_new_tokens=10, stopping=stopping)
        found[stopping] = [h.tokens for h in beam_search(model, prompts, settings, end_tokens=ends, pad_token=0)]
        assert found[stopping] == stock_generate(model, prompts, settings, ends)
    assert found["bound"] != found["exact"] != found["first"] != found["bound"]


def test_stock_rules_ban_single_tokens_as_generate_does() -> None:
    settings = replace(STOCK, beam=3, no_repeat_ngram=1, max_new_tokens=4)
    model, prompts = tiny("gpt2", vocab=12), draw_prompts(16, vocab=12, longest=6)
    found = beam_search(model, prompts, settings, end_tokens=[0], pad_token=0)
    for hypothesis, prompt in zip(found, prompts, strict=True):  # one at a time: generate counts padding as seen
        assert [hypothesis.tokens] == stock_generate(model, [prompt], settings, [0])


def reference_log_probs(logits: list[float], banned: set[int], before_softmax: bool) -> list[float]:
    """Log p of every token, -inf for banned ones."""
    counted = [x for v, x in enumerate(logits) if not (before_softmax and v in banned)]
    top = max(counted, default=0.0)
    norm = top + math.log(math.fsum(math.exp(x - top) for x in counted)) if counted else 0.0
    return [-math.inf if v in banned else x - norm for v, x in enumerate(logits)]


def reference_banned(seen: Sequence[int], n: int) -> set[int]:
    """Tokens that would make the last n tokens an n-gram that `seen` already has."""
    grams = {tuple(seen[i : i + n]) for i in range(len(seen) - n + 1)}
    return {gram[-1] for gram in grams if n and len(seen) >= n - 1 and gram[:-1] == tuple(seen[len(seen) - n + 1 :])}


def reference_lora(model: Any, prompt: list[int], s: Decode, ends: list[int]) -> tuple[list[int], float]:
    """Beam search on lists: every step, whole sequences through the model, no cache, no early stop."""
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    finished: list[tuple[float, list[int]]] = []
    for _ in range(s.max_new_tokens):
        candidates = []
        if beams:
            logits = model(torch.tensor([prompt + tokens for _, tokens in beams])).logits[:, -1].tolist()
            for (total, tokens), row in zip(beams, logits, strict=True):
                seen = tokens if s.no_repeat_scope == "generated" else prompt + tokens
                banned = reference_banned(seen, s.no_repeat_ngram)
                log_probs = reference_log_probs(row, banned, s.no_repeat_before_softmax)
                candidates += [(total + x, [*tokens, v]) for v, x in enumerate(log_probs) if x > -math.inf]
        best = sorted(candidates, key=lambda c: -c[0])[: s.beam]
        finished += [(total, tokens) for total, tokens in best if tokens[-1] in ends]
        beams = [(total, tokens) for total, tokens in best if tokens[-1] not in ends]
    scored = [(total / len(tokens) ** s.length_penalty, tokens) for total, tokens in finished + beams]
    score, tokens = max(scored, key=lambda c: c[0])
    return tokens, score


def with_end(h: Hypothesis, ends: list[int], full: list[int]) -> list[int]:
    """The tokens of a hypothesis with the end token that `full` has, where it finished."""
    return [*h.tokens, full[-1]] if h.finished and full[-1] in ends else h.tokens


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("beam", "penalty", "ngram", "ends", "scope", "before"),
    [
        (1, 0.8, 2, [0, 4], "generated", True),
        (3, 0.8, 2, [0, 4, 9], "generated", True),
        (4, 0.0, 1, [0], "generated", True),
        (4, -0.7, 3, [0, 4, 9], "all", True),
        (5, 1.5, 2, [0, 4, 9], "generated", False),
        (10, 0.8, 4, [0], "generated", True),
        (4, 0.8, 0, [], "generated", True),
    ],
)
def test_lora_rules_agree_with_a_search_on_lists(
    kind: str, beam: int, penalty: float, ngram: int, ends: list[int], scope: str, before: bool
) -> None:
    settings = Decode(beam=beam, length_penalty=penalty, no_repeat_ngram=ngram, max_new_tokens=8, batch_size=3)
    settings = replace(settings, no_repeat_scope=scope, no_repeat_before_softmax=before)
    model, prompts = tiny(kind), draw_prompts(6, seed=beam)
    found = beam_search(model, prompts, settings, end_tokens=ends, pad_token=1)
    for hypothesis, prompt in zip(found, prompts, strict=True):
        tokens, score = reference_lora(model, prompt, settings, ends)
        assert with_end(hypothesis, ends, tokens) == tokens
        assert hypothesis.score == pytest.approx(score, abs=1e-4)
        assert hypothesis.finished == (tokens[-1] in ends)


@pytest.mark.parametrize("kind", ["gpt2", "opt"])
@pytest.mark.parametrize("penalty", [-1.0, 0.0, 0.8, 2.0])
@pytest.mark.parametrize("stopping", ["length", "exact"])
def test_a_beam_as_wide_as_the_space_finds_the_optimum(kind: str, penalty: float, stopping: str) -> None:
    vocab, steps, model, prompt = 4, 4, tiny(kind, vocab=4), [1, 2, 1]
    settings = Decode(beam=vocab**steps, length_penalty=penalty, no_repeat_ngram=0, max_new_tokens=steps)
    settings = replace(settings, stopping=stopping, candidates="beam" if stopping == "length" else "double")
    sequences = [
        s
        for n in range(1, steps + 1)
        for s in itertools.product(range(vocab), repeat=n)
        if 0 not in s[:-1] and (s[-1] == 0 or n == steps)
    ]
    log_probs = {s: plain_log_prob(model, prompt, s) / len(s) ** penalty for s in sequences}
    best = max(sequences, key=lambda s: log_probs[s])
    (found,) = beam_search(model, [prompt], settings, end_tokens=[0], pad_token=0)
    assert with_end(found, [0], list(best)) == list(best)
    assert found.score == pytest.approx(log_probs[best], abs=1e-5)


def plain_log_prob(model: Any, prompt: Sequence[int], tokens: Sequence[int]) -> float:
    """Sum of log p of `tokens` after `prompt`, nothing banned."""
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
    return float(logits.log_softmax(1).gather(1, torch.tensor(tokens)[:, None]).sum())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("settings", [Decode(), STOCK], ids=["lora", "stock"])
def test_batch_size_and_order_change_nothing(kind: str, settings: Decode) -> None:
    model, prompts, ends = tiny(kind), draw_prompts(12, seed=3, longest=30), [0, 4, 9]

    def search(prompts: list[list[int]], batch_size: int) -> list[list[int]]:
        s = replace(settings, batch_size=batch_size, beam=5, max_new_tokens=10)
        return [h.tokens for h in beam_search(model, prompts, s, end_tokens=ends, pad_token=5)]

    one_by_one = search(prompts, 1)
    assert len({len(tokens) for tokens in one_by_one}) > 1  # prompts leave their batch at different times
    assert search(prompts, 5) == search(prompts, 12) == search(prompts, 64) == one_by_one
    order = random.Random(0).sample(range(12), 12)
    assert search([prompts[i] for i in order], 8) == [one_by_one[i] for i in order]


@pytest.mark.parametrize("kind", KINDS[:3])  # the fourth has a window, whose layers are the stock ones
def test_a_batch_stays_within_its_memory(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts = tiny(kind), draw_prompts(12, seed=3, longest=30)
    settings = Decode(beam=3, max_new_tokens=6, batch_size=8)

    def search() -> list[list[int]]:
        held.clear()
        return [h.tokens for h in beam_search(model, prompts, settings, end_tokens=[0], pad_token=0)]

    held: list[int] = []  # bytes of all layers' keys and values, by batch
    stock = decode._BeamLayer.__init__

    def noted(layer: Any, *arguments: Any) -> None:
        stock(layer, *arguments)
        held.append(sum(buffer.nbytes for buffer in layer.buffers))

    monkeypatch.setattr(decode._BeamLayer, "__init__", noted)
    together, layers = search(), model.config.num_hidden_layers
    assert len(held) == 2 * layers  # twelve prompts, eight at once
    limit = 3 * decode._needed(model, max(map(len, prompts)), settings)
    monkeypatch.setattr(decode, "MEMORY", limit)
    assert search() == together
    assert len(held) >= 4 * layers
    assert max(sum(held[k : k + layers]) for k in range(0, len(held), layers)) <= limit
    monkeypatch.setattr(decode, "MEMORY", 1)
    assert search() == together and len(held) == 12 * layers


def repeats(tokens: list[int], n: int) -> bool:
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return len(set(grams)) < len(grams)


def shares(prompt: list[int], tokens: list[int], n: int) -> bool:
    """Whether prompt and continuation have an n-gram in common."""

    def grams(x: list[int]) -> set[tuple[int, ...]]:
        return {tuple(x[i : i + n]) for i in range(len(x) - n + 1)}

    return bool(grams(prompt) & grams(tokens))


def test_the_scope_of_the_ban() -> None:
    """Scope "generated" may repeat the prompt, "all" may not; neither repeats itself."""
    model, prompts = tiny("gpt2", vocab=9), draw_prompts(30, seed=5, vocab=9)
    free = Decode(beam=4, no_repeat_ngram=0, max_new_tokens=12)
    found = {
        name: [h.tokens for h in beam_search(model, prompts, s, end_tokens=[0], pad_token=0)]
        for name, s in {
            "off": free,
            "generated": replace(free, no_repeat_ngram=2),
            "all": replace(free, no_repeat_ngram=2, no_repeat_scope="all"),
        }.items()
    }
    assert any(repeats(tokens, 2) for tokens in found["off"])
    assert not any(repeats(tokens, 2) for tokens in found["generated"] + found["all"])
    assert any(shares(p, tokens, 2) for p, tokens in zip(prompts, found["generated"], strict=True))
    assert not any(repeats(p[-1:] + tokens, 2) for p, tokens in zip(prompts, found["all"], strict=True))
    assert not any(shares(p, tokens, 2) for p, tokens in zip(prompts, found["all"], strict=True))


def test_a_ban_before_the_softmax_gives_its_mass_to_other_tokens() -> None:
    model, prompts = tiny("gpt2"), draw_prompts(30, seed=6)
    after = Decode(beam=4, no_repeat_ngram=1, length_penalty=0.0, max_new_tokens=12, no_repeat_before_softmax=False)

    def gains(settings: Decode) -> list[float]:
        """By how much each score exceeds what the model itself gives the hypothesis."""
        found = beam_search(model, prompts, settings, end_tokens=[0], pad_token=0)
        pairs = zip(prompts, found, strict=True)
        return [h.score - plain_log_prob(model, p, h.tokens + [0] * h.finished) for p, h in pairs]

    assert gains(after) == pytest.approx([0.0] * 30, abs=1e-3)
    before = gains(replace(after, no_repeat_before_softmax=True))
    assert min(before) > -1e-3 and max(before) > 0.1


def test_it_stops_when_no_open_beam_can_win() -> None:
    """Far fewer calls than steps, though the reference, which always takes all steps, has the same outcome."""
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    model, prompts, ends = tiny("gpt2"), draw_prompts(4, seed=7, longest=6), list(range(0, 61, 2))
    settings = Decode(beam=3, max_new_tokens=40)
    handle = model.register_forward_pre_hook(count)
    found = beam_search(model, prompts, settings, end_tokens=ends, pad_token=0)
    handle.remove()
    assert calls < 30
    for hypothesis, prompt in zip(found, prompts, strict=True):
        tokens, score = reference_lora(model, prompt, settings, ends)
        assert (with_end(hypothesis, ends, tokens), hypothesis.score) == (tokens, pytest.approx(score, abs=1e-4))


@pytest.mark.parametrize("settings", [Decode(), STOCK], ids=["lora", "stock"])
def test_when_every_token_is_banned_what_has_ended_counts(settings: Decode) -> None:
    settings = replace(settings, no_repeat_ngram=1, max_new_tokens=8, beam=2)
    found = beam_search(tiny("gpt2", vocab=4), [[1], [1, 2, 3, 0]], settings, end_tokens=[0], pad_token=0)
    assert found[0].finished and len(found[0].tokens) == len(set(found[0].tokens)) <= 3
    if settings.no_repeat_scope == "all":
        assert found[1] == Hypothesis([], -math.inf, False)


def test_lower_precision_scores_are_kept_in_float32() -> None:
    model, settings = tiny("gpt2", dtype=torch.bfloat16), Decode(beam=4, max_new_tokens=6, no_repeat_ngram=0)
    (found,) = beam_search(model, [[1, 2]], settings, end_tokens=[], pad_token=0)
    assert found.score != float(torch.tensor(found.score, dtype=torch.bfloat16))


def test_progress_counts_every_prompt_once() -> None:
    done: list[int] = []
    settings = Decode(beam=3, max_new_tokens=8, batch_size=4)
    beam_search(tiny("gpt2"), draw_prompts(10), settings, end_tokens=[0, 4], pad_token=0, progress=done.append)
    assert sum(done) == 10 and min(done) > 0


def test_no_prompts_give_no_hypotheses() -> None:
    assert beam_search(tiny("gpt2"), [], Decode(), end_tokens=[0], pad_token=0) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_that_does_not_fit_is_refused(kind: str) -> None:
    settings = Decode(beam=2, max_new_tokens=4)
    fits, too_long = [[1] * (POSITIONS - 4)], [[1], [1] * (POSITIONS - 3)]
    assert len(beam_search(tiny(kind), fits, settings, end_tokens=[0], pad_token=0)) == 1
    with pytest.raises(UserError, match=r"prompt 1 has 61 tokens; with decode.max_new_tokens=4 .* 64 positions"):
        beam_search(tiny(kind), too_long, settings, end_tokens=[0], pad_token=0)


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(UserError, match="prompt 1 is empty"):
        beam_search(tiny("gpt2"), [[1], []], Decode(max_new_tokens=4), end_tokens=[0], pad_token=0)


def test_a_model_that_gives_nan_is_refused() -> None:
    model = AutoModelForCausalLM.from_config(tiny("gpt2").config).eval()
    model.transformer.ln_f.weight.data.fill_(math.nan)
    with pytest.raises(UserError, match="nan"):
        beam_search(model, [[1, 2]], Decode(beam=2, max_new_tokens=3), end_tokens=[0], pad_token=0)


def test_a_model_in_training_mode_is_refused() -> None:
    model = AutoModelForCausalLM.from_config(tiny("gpt2").config).train()
    with pytest.raises(ValueError, match="evaluation mode"):
        beam_search(model, [[1, 2]], Decode(), end_tokens=[0], pad_token=0)


@pytest.mark.parametrize(
    ("text", "rule", "cut"),
    [
        (" a b \n\n c", "line", "a b"),
        ("a\nb\n\n\nc\n\nd", "line", "a\nb"),
        ("\n\na", "line", ""),
        (" a \n", "line", "a"),
        (" a \n\n b ", "none", "a \n\n b"),
        ("", "none", ""),
    ],
)
def test_cut_text(text: str, rule: str, cut: str) -> None:
    assert cut_text(text, rule) == cut


def test_cut_text_knows_two_rules() -> None:
    with pytest.raises(ValueError, match="must be line or none"):
        cut_text("a", "lines")


@pytest.mark.slow
@pytest.mark.parametrize("stopping", ["bound", "exact"])
def test_stock_rules_on_a_trained_model(stopping: str) -> None:
    folder = Path(os.environ.get("ALPHATUNE_SHARED", "../shared")) / "models" / "mini-gpt2"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: set ALPHATUNE_SHARED to the folder that has models/mini-gpt2")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rng = random.Random(0)
    names = ["Alan Bean", "Aarhus Airport", "Ace Wilder", "Bakewell pudding", "New York", "Texas", "Apollo 12"]
    relations = ["birthPlace", "location", "operator", "ingredient", "country", "leader name", "occupation"]

    def triple() -> str:
        return f"{rng.choice(names)} : {rng.choice(relations)} : {rng.choice(names)}"

    triples = [[triple() for _ in range(rng.randint(1, 4))] for _ in range(500)]
    prompts = [tokenizer(" | ".join(t)).input_ids for t in triples]
    settings = replace(STOCK, beam=5, stopping=stopping, max_new_tokens=24)
    found = beam_search(model, prompts, settings, end_tokens=[0], pad_token=0)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), 16):
        batch = order[start : start + 16]
        expected = stock_generate(model, [prompts[i] for i in batch], settings, [0])
        assert [found[i].tokens for i in batch] == expected
