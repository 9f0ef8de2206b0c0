"""The embedded backbone: a GPT-2 of about a million parameters, pre-trained on the toy world's text.

It exists so that everything can be run and tested without a download, and knows the toy world and nothing else. Its
weights are part of the package, so that every machine starts from the same bytes. `python -m alphatune.learn.tiny DIR`
makes such weights again from this recipe (other machines and versions of torch round differently).
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from alphatune.config import Tiny
from alphatune.data import toy
from alphatune.learn import embedded
from alphatune.progress import Progress
from alphatune.terminal import Parser, log_to_terminal, status_of

END = "<|endoftext|>"  # id 0: begins, separates and ends, as in GPT-2


def gpt2_config(spec: Tiny) -> GPT2Config:
    """The architecture, without dropout."""
    return GPT2Config(
        vocab_size=spec.vocabulary, n_embd=spec.width, n_layer=spec.layers, n_head=spec.heads,
        n_positions=spec.positions, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        activation_function="gelu_pytorch_tanh", bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip


def pretrain(spec: Tiny, folder: Path, progress: bool = True, dtype: torch.dtype = torch.float32) -> None:
    """Train tokenizer and model from scratch, in float32, and save both to `folder`, the weights as `dtype`.

    Every document is seen once. Hidden matrices are trained with Muon, the rest with AdamW; the learning rate rises
    for 50 steps, stays, and falls linearly over the last 60 %. Ten minutes on two plain CPU cores.
    """
    documents = list(toy.pretraining_documents(spec.steps * spec.batch_size))
    tokenizer = _train_tokenizer(documents[: embedded.TOKENIZER_DOCUMENTS], spec.vocabulary)
    encoded = tokenizer.encode_batch(documents)
    sequences = [torch.tensor([0, *e.ids, 0][: spec.positions]) for e in encoded]
    torch.manual_seed(0)
    model = GPT2LMHeadModel(gpt2_config(spec)).train()
    hidden = [p for n, p in model.named_parameters() if p.ndim == 2 and ".h." in n]
    others = [p for n, p in model.named_parameters() if not (p.ndim == 2 and ".h." in n)]
    muon = _Muon(hidden, {"lr": 0.02})
    adam = torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0)
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda step: _rate(step, spec.steps)) for o in (muon, adam)]
    with Progress("pre-train", spec.steps, "step", progress) as shown:
        for batch in _batches(sequences, spec.batch_size):
            loss = _loss(model, batch)
            loss.backward()
            for optimiser, schedule in zip((muon, adam), schedules, strict=True):
                optimiser.step()
                optimiser.zero_grad()
                schedule.step()
            if shown.done % 20 == 0:
                shown.show({"loss": f"{loss.item():.3f}"})
            shown.advance()
    model.eval().to(dtype).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, unk_token=END, pad_token=END,
        model_max_length=spec.positions,
    ).save_pretrained(folder)  # fmt: skip


class _Muon(torch.optim.Optimizer):
    """Momentum whose direction is made orthogonal, for matrices (Jordan et al. 2024, "Muon").

    torch's own computes the orthogonalisation in bfloat16, which CPUs without such units do fifty times slower than
    float32, and with other bits than those with them.
    """

    MOMENTUM, DECAY, STEPS, POLYNOMIAL = 0.95, 0.05, 5, (3.4445, -4.7750, 2.0315)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every matrix, from its gradient."""
        for group in self.param_groups:
            for matrix in group["params"]:
                momentum = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
                momentum.lerp_(matrix.grad, 1 - self.MOMENTUM)
                update = self._orthogonal(matrix.grad.lerp(momentum, self.MOMENTUM))
                matrix.mul_(1 - group["lr"] * self.DECAY)
                matrix.sub_(update, alpha=group["lr"] * max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5)

    def _orthogonal(self, matrix: Tensor) -> Tensor:
        """A matrix with the singular vectors of `matrix` and singular values near 1, by Newton-Schulz steps."""
        a, b, c = self.POLYNOMIAL
        wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
        wide = wide / wide.norm().clamp(min=1e-7)
        for _ in range(self.STEPS):
            gram = wide @ wide.T
            wide = a * wide + (b * gram + c * gram @ gram) @ wide
        return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


def _train_tokenizer(documents: list[str], vocabulary: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    # single digits: numbers are then copied digit by digit, which takes precise attention
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def _batches(sequences: list[Tensor], batch_size: int) -> Iterator[Tensor]:
    """Padded batches [B, T] of sequences of like length, in random order; padding is -1."""
    rng = random.Random(0)
    window = batch_size * 50
    batches = []
    for start in range(0, len(sequences), window):
        chunk = sorted(sequences[start : start + window], key=len)
        batches += [chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)]
    rng.shuffle(batches)
    for batch in batches:
        yield pad_sequence(batch, batch_first=True, padding_value=-1)


def _loss(model: nn.Module, batch: Tensor) -> Tensor:
    # padding is on the right, so a causal model needs no attention mask
    logits = model(input_ids=batch[:, :-1].clamp(min=0), use_cache=False).logits
    return functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), ignore_index=-1)


def _rate(step: int, steps: int) -> float:
    done = step / steps
    return min(1.0, (step + 1) / 50) * (1.0 if done < 0.4 else max(0.02, (1 - done) / 0.6))


def embed(folder: Path) -> None:
    """Make the weights that the package carries: the default recipe in half precision, and the hashes of its files."""
    pretrain(Tiny(), folder, dtype=torch.float16)
    embedded.seal(folder)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns its exit status."""
    parser = Parser("python -m alphatune.learn.tiny", "Make the embedded weights again, as the package carries them.")
    parser.add_argument("folder", type=Path, help="where to write them")
    log_to_terminal()

    def make() -> int:
        embed(parser.parse_args(arguments).folder)
        return 0

    return status_of(make)


if __name__ == "__main__":
    sys.exit(main())
