"""Beam search: prompts in, the best continuation of each out, under two documented sets of rules.

Shared by both. A hypothesis scores `sum of log p / n ** length_penalty`, n = its generated tokens *including* the end
token. A step extends each of the K beams of a prompt by every token and looks at the C best of these continuations. Of
the K best among them, those that end (with an end token, or at max_new_tokens) are finished hypotheses; the K best that
do not end are the next beams. The highest score wins, the earlier one on a tie. A token is banned where it would
complete an n-gram that was seen before.

LoRA's rules (the defaults of `Decode`; the decoder of Hu et al. 2022, whose settings the paper's NLG tasks take over):
  * n-grams are those of the generated tokens, so names may be repeated from the prompt;
  * banned tokens leave before the softmax, so their probability mass goes to the tokens that remain;
  * C = K: a beam that ends leaves an empty place, which the next step fills with continuations of the others;
  * stopping "length": every step up to max_new_tokens counts, and beams still open then compete as they are.

The rules of `transformers.generate(num_beams=K, do_sample=False)` (no_repeat_scope="all",
no_repeat_before_softmax=False, candidates="double"), token for token:
  * n-grams are those of prompt and generated tokens, never of padding;
  * banned tokens leave after the softmax, and the others keep their probability;
  * C = K * max(2, 1 + number of end tokens), so that K open beams always remain; K = 1 is greedy;
  * a prompt is done once it has K finished hypotheses ("first"), or K of which the worst beats the best open beam
    divided by its present length ** length_penalty ("bound", a heuristic) or by the most favourable length that the
    beam can still reach ("exact": as only the best hypothesis is returned, this cannot differ from "length").

Under any rule a prompt is also done once no open beam can win, which cannot change the outcome (see `done`).
Not known here: text. Tokens come in and go out; only `cut_text` sees strings, which someone else decoded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import DynamicLayer

from alphatune.config import Decode
from alphatune.errors import UserError

NEVER = -torch.inf  # the sum or score of what must not be chosen
MEMORY = 4 << 30  # bytes that keys, values and logits of a batch may take; one prompt is decoded in any case
NO_TOKEN = -1  # stands where a shorter prompt has padding; equals no token, so no n-gram with it repeats


@dataclass(frozen=True)
class Hypothesis:
    """The best continuation of one prompt."""

    tokens: list[int]  # generated tokens, without the prompt and without the end token
    score: float  # sum of log p (nats, end token included) / length ** length_penalty; -inf if every token was banned
    finished: bool  # it ended with an end token, not because it was long enough


def beam_search(
    model: Any,
    prompts: Sequence[Sequence[int]],
    settings: Decode,
    *,
    end_tokens: Sequence[int],
    pad_token: int,
    progress: Callable[[int], None] | None = None,
) -> list[Hypothesis]:
    """The best continuation of each prompt, in their order; how they are batched matters only where scores are equal.

    Args:
        model: a causal language model of transformers (or peft) in evaluation mode, whose forward takes `position_ids`
            and `logits_to_keep`. It runs on `model.device` in its own precision; scores are float32.
        prompts: token ids, at least one each.
        settings: all but `stop_text`, which is the business of `cut_text`. Fewer prompts than `batch_size` are decoded
            at once where their keys, values and logits would take more than `MEMORY`.
        end_tokens: tokens that end a hypothesis; there may be none.
        pad_token: any token id of the model; it is masked, and may occur in prompts.
        progress: called with the number of prompts just done, like the `update` of a progress bar.

    Raises:
        UserError: a prompt is empty, or with max_new_tokens exceeds the model's positions; the model's output is nan.
        ValueError: the model is in training mode, where dropout would make results random.
    """
    if model.training:
        raise ValueError("beam_search needs a model in evaluation mode: call model.eval() first")
    _check_lengths(prompts, settings.max_new_tokens, getattr(model.config, "max_position_embeddings", None))
    ends = torch.tensor(sorted(set(end_tokens)), dtype=torch.long, device=model.device)
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))  # what memory cannot hold fails at once
    found: dict[int, Hypothesis] = {}
    with torch.inference_mode():
        while order:
            size = min(settings.batch_size, max(1, MEMORY // _needed(model, len(prompts[order[0]]), settings)))
            keys, order = order[:size], order[size:]
            beams = _Beams(keys, [prompts[i] for i in keys], settings, ends)
            for done in _search(model, beams, pad_token):
                found.update(done)
                if progress:
                    progress(len(done))
    return [found[i] for i in range(len(prompts))]


def cut_text(text: str, rule: str) -> str:
    """The scored part of a text, stripped: up to the first blank line ("line") or all ("none"); else a ValueError."""
    if rule not in ("line", "none"):
        raise ValueError(f"unknown rule {rule!r}: must be line or none")
    return (text.split("\n\n", 1)[0] if rule == "line" else text).strip()


def _check_lengths(prompts: Sequence[Sequence[int]], new: int, limit: int | None) -> None:
    for i, prompt in enumerate(prompts):
        if not prompt:
            raise UserError(f"prompt {i} is empty: beam search needs at least one token to start from")
        if limit is not None and len(prompt) + new > limit:
            raise UserError(
                f"prompt {i} has {len(prompt)} tokens; with decode.max_new_tokens={new} this exceeds the model's "
                f"{limit} positions: shorten the context or lower decode.max_new_tokens"
            )


def _needed(model: Any, prompt: int, settings: Decode) -> int:
    """Bytes that keys, values and logits of the beams of one prompt take; 1 where a model's shape has other names."""
    shape = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    try:
        heads = getattr(shape, "num_key_value_heads", None) or shape.num_attention_heads
        depth = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
        token = 2 * shape.num_hidden_layers * heads * depth * model.dtype.itemsize
        return settings.beam * (token * (prompt + settings.max_new_tokens) + 3 * 4 * shape.vocab_size)
    except AttributeError:
        return 1


def _search(model: Any, beams: _Beams, pad_token: int) -> Iterator[dict[int, Hypothesis]]:
    """Runs the beams of one batch to their end; yields the hypotheses of prompts as they get done."""
    k = beams.settings.beam
    real = beams.prompts != NO_TOKEN
    logits, cache = _forward(model, beams.prompts.masked_fill(~real, pad_token), real, None)
    logits = logits.repeat_interleave(k, 0)
    for i, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.is_initialized:
            cache.layers[i] = _BeamLayer(layer, k, beams.settings.max_new_tokens)
        else:  # sliding windows, recurrent states: transformers' own way, which copies more
            layer.batch_repeat_interleave(k)
    while True:
        rows = beams.advance(logits)
        done = beams.done()
        if done.any():
            yield beams.results(done)
            if done.all():
                return
            rows = rows[beams.drop(done)]
        _reorder(cache, rows.flatten(), k)
        real = torch.cat([beams.prompts != NO_TOKEN, torch.ones_like(beams.tokens[:, 0], dtype=torch.bool)], 1)
        logits, _ = _forward(model, beams.tokens[:, :, -1].reshape(-1, 1), real.repeat_interleave(k, 0), cache)


def _forward(model: Any, tokens: Tensor, real: Tensor, cache: Any) -> tuple[Tensor, Any]:
    """Float32 logits [N, V] after the last of `tokens` [N, new], and the cache; `real` [N, past + new]: not padding."""
    positions = (real.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
    inputs = {"input_ids": tokens, "attention_mask": real.long(), "position_ids": positions}
    out = model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return out.logits[:, -1].float(), out.past_key_values


class _Beams:
    """The K beams of each of B prompts, and the best finished hypothesis of each; B shrinks as prompts are done."""

    def __init__(self, keys: list[int], prompts: list[Sequence[int]], settings: Decode, ends: Tensor) -> None:
        self.settings, self.ends = settings, ends
        b, k, longest = len(keys), settings.beam, max(map(len, prompts))
        self.width = k * max(2, 1 + len(ends)) if settings.candidates == "double" and k > 1 else k  # C
        padded = [[NO_TOKEN] * (longest - len(p)) + list(p) for p in prompts]
        self.keys = torch.tensor(keys, device=ends.device)  # [B] the caller's name of each prompt
        self.prompts = torch.tensor(padded, device=ends.device)  # [B, P]
        self.tokens = self.prompts.new_empty(b, k, 0)  # [B, K, steps]
        self.sums = torch.full((b, k), NEVER, device=ends.device)  # [B, K] sum of log p of each beam
        self.sums[:, 0] = 0.0  # equal beams would give equal hypotheses: all but one start empty
        self.pool = torch.full_like(self.sums, NEVER)  # [B, K] scores of the K best finished hypotheses, best first
        # [B, T] the tokens of the best finished one; never replaced by a shorter one, so no remains of an older one
        self.best = self.prompts.new_full((b, settings.max_new_tokens), NO_TOKEN)

    def advance(self, logits: Tensor) -> Tensor:
        """One step on logits [B*K, V], which are overwritten; returns the row [B, K] that each new beam comes from."""
        b, k = self.sums.shape
        values, choices = self._log_probs(logits)
        c = values.shape[1]
        sums, index = (values.view(b, k, c) + self.sums[:, :, None]).flatten(1).topk(min(self.width, k * c))
        parent, token = index // c, choices.view(b, k * c).gather(1, index)  # [B, C]
        tokens = torch.cat([self.tokens.take_along_dim(parent[:, :, None], 1), token[:, :, None]], 2)  # [B, C, steps]
        ended = torch.isin(token, self.ends)
        self._finish(tokens[:, :k], sums[:, :k], ended[:, :k])
        sums = sums.masked_fill(ended, NEVER)
        kept = sums.topk(k)[1]
        kept = kept.gather(1, _settle(parent.gather(1, kept)))
        self.sums, self.tokens = sums.gather(1, kept), tokens.take_along_dim(kept[:, :, None], 1)
        return parent.gather(1, kept) + k * torch.arange(b, device=kept.device)[:, None]

    def done(self) -> Tensor:
        """Which prompts [B] cannot get a better hypothesis, or must not look for one under the stopping rule."""
        s, steps = self.settings, self.tokens.shape[2]
        leader, worst = self.sums.amax(1), self.pool[:, -1]  # worst: NEVER until there are K finished ones
        # As log p <= 0, sums only fall: a beam scores best if it keeps its sum and ends at the most favourable length.
        reach = s.max_new_tokens if s.length_penalty > 0 else steps + 1
        over = leader / reach**s.length_penalty <= self.pool[:, 0]
        if s.stopping == "bound":
            over |= leader / steps**s.length_penalty <= worst
        elif s.stopping == "first":
            over |= worst > NEVER
        return over if steps < s.max_new_tokens else torch.ones_like(over)

    def drop(self, rows: Tensor) -> Tensor:
        """Forgets the prompts where `rows` [B] is true; the last ones fill the gaps. Returns the others' old places."""
        staying = int((~rows).sum())
        order = torch.arange(staying, device=rows.device)
        order[rows[:staying]] = (~rows[staying:]).nonzero()[:, 0] + staying
        for name in ("keys", "prompts", "tokens", "sums", "pool", "best"):
            setattr(self, name, getattr(self, name)[order])
        return order

    def results(self, rows: Tensor) -> dict[int, Hypothesis]:
        """The best hypothesis of each prompt where `rows` [B] is true, by its key."""
        ends, found = set(self.ends.tolist()), {}
        for key, row, score in zip(*(x[rows].tolist() for x in (self.keys, self.best, self.pool[:, 0])), strict=True):
            if math.isnan(score):
                raise UserError(f"prompt {key}: the model's scores are nan, not numbers; did its training diverge?")
            tokens = [token for token in row if token != NO_TOKEN and token not in ends]
            found[key] = Hypothesis(tokens, score, not ends.isdisjoint(row))
        return found

    def _log_probs(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Log p and token, both [B*K, c], of the c best tokens of each beam: none but these can be among the C best."""
        if self.settings.no_repeat_before_softmax:
            self._ban(logits)
        norm = logits.logsumexp(1, keepdim=True)
        if not self.settings.no_repeat_before_softmax:
            self._ban(logits)
        values, tokens = logits.topk(min(self.width, logits.shape[1]))
        # -inf - -inf: every token is banned and the beam ends here. The bound of `done` needs log p <= 0 when rounded.
        return (values - norm).masked_fill(norm == NEVER, NEVER).clamp(max=0.0), tokens

    def _ban(self, scores: Tensor) -> None:
        """Sets scores [B*K, V] to -inf where the token would repeat an n-gram, in place."""
        n, seen = self.settings.no_repeat_ngram, self.tokens
        if self.settings.no_repeat_scope == "all":
            seen = torch.cat([self.prompts[:, None].expand(-1, seen.shape[1], -1), seen], 2)
        seen = seen.flatten(0, 1)  # [B*K, length]
        start = seen.shape[1] - n + 1  # of the n - 1 tokens that the next one follows
        if n == 0 or start < 1:
            return
        ngrams = seen.unfold(1, n, 1)  # [B*K, start, n]
        row, place = (ngrams[:, :, :-1] == seen[:, None, start:]).all(2).nonzero(as_tuple=True)
        token = ngrams[row, place, -1]
        real = token != NO_TOKEN  # n = 1 meets padding
        scores[row[real], token[real]] = NEVER

    def _finish(self, tokens: Tensor, sums: Tensor, ended: Tensor) -> None:
        """Takes up those of the K best continuations that end: tokens [B, K, steps], sums and ended [B, K]."""
        steps = tokens.shape[2]
        scores = sums / steps**self.settings.length_penalty
        if steps < self.settings.max_new_tokens:
            scores = scores.masked_fill(~ended, NEVER)
        top, rank = scores.max(1)
        better = top > self.pool[:, 0]
        self.best[better, :steps] = tokens[better, rank[better]]
        self.pool = torch.cat([self.pool, scores], 1).topk(self.pool.shape[1])[0]


def _settle(parent: Tensor) -> Tensor:
    """An order [B, K] of new beams, given their parents' places, that leaves one child of each parent in its place."""
    first = ~(parent[:, :, None] == parent[:, None, :]).tril(-1).any(2)  # the first child of its parent
    taken = torch.zeros_like(first).scatter(1, parent, True)  # places whose beam has a child
    spare, free = (x.int().argsort(dim=1, stable=True) for x in (first, taken))  # other children, childless places
    return torch.zeros_like(parent).scatter(1, spare, free).where(~first, parent).argsort(1)


def _reorder(cache: Any, rows: Tensor, beams: int) -> None:
    """Row i of the cache becomes what row rows[i] was; fewer rows than before are those of fewer prompts."""
    place = torch.arange(len(rows), device=rows.device)
    prompts = (rows // beams != place // beams).nonzero()[:, 0]  # places that get another prompt
    beam = (rows != place).nonzero()[:, 0]  # places that get other generated tokens
    for layer in cache.layers:
        if isinstance(layer, _BeamLayer):
            layer.move(rows, prompts, beam)
        else:
            layer.reorder_cache(rows)


class _BeamLayer(DynamicLayer):
    """Keys and values of one layer, views of two buffers [B*K, heads, P + room, depth].

    Tokens are appended in place, and only what beams do not share moves; the stock layer copies all twice per step.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, encoded: Any, beams: int, room: int) -> None:
        super().__init__()
        self.lazy_initialization(encoded.keys, encoded.values)
        self.prompt = encoded.get_seq_length()  # P
        self.buffers = [pad(x, (0, 0, 0, room)).repeat_interleave(beams, 0) for x in (encoded.keys, encoded.values)]
        self.keys, self.values = (buffer[:, :, : self.prompt] for buffer in self.buffers)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Appends the keys and values [B*K, heads, new, depth] of new tokens; returns those of all tokens."""
        rows, start, end = len(key_states), self.get_seq_length(), self.get_seq_length() + key_states.shape[2]
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:rows, :, start:end] = new
        self.keys, self.values = (buffer[:rows, :, :end] for buffer in self.buffers)
        return self.keys, self.values

    def move(self, rows: Tensor, prompts: Tensor, beams: Tensor) -> None:
        """Keeps len(rows) rows; those at `prompts` get the prompt of row rows[i], those at `beams` its other tokens."""
        for x in (self.keys, self.values):
            for to, columns in ((prompts, slice(self.prompt)), (beams, slice(self.prompt, None))):
                x[to, :, columns] = x[rows[to], :, columns]
        self.keys, self.values = self.keys[: len(rows)], self.values[: len(rows)]
