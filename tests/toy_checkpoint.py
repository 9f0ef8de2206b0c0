"""Folders that the tests of the command line read: a random GPT-2 with a tokenizer of bytes, packed, with adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import alphatune

END = "<|endoftext|>"
IDS = torch.arange(2, 14).view(2, 6)


def write_dense(folder: Path) -> Path:
    """A dense checkpoint and its tokenizer."""
    vocabulary = {END: 0, **{c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()), 1)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, bos_token=END).save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=257, n_embd=64, n_layer=2, n_head=2, n_positions=64, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)  # logits that are not all alike: beams then have a clear order
    model.save_pretrained(folder)
    return folder


def write_packed(dense: Path, folder: Path, config: Any = None) -> Path:
    """The same model, packed, without tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(dense)
    alphatune.quantize_model(model, config or alphatune.BCQConfig(2), progress=False).save_pretrained(folder)
    return folder


def write_adapter(base: Path, folder: Path, seed: int, lora: bool = False) -> Path:
    """An adapter with random values."""
    model = AutoModelForCausalLM.from_pretrained(base)
    config: Any = alphatune.AlphaTuningConfig(trainable="first", task_type="CAUSAL_LM")
    if lora:
        config = LoraConfig(r=2, target_modules=["c_attn"], task_type="CAUSAL_LM")
    tuned = get_peft_model(model, config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.mul_(1 + 0.5 * torch.rand_like(parameter))
    tuned.save_pretrained(str(folder))
    return folder


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    """Logits of fixed tokens."""
    found: torch.Tensor = model.eval()(input_ids=IDS).logits
    return found
