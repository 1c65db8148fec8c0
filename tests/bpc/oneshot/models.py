"""Small models of several kinds, with batches to calibrate them on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

Batches = list[dict[str, torch.Tensor]]
VOCABULARY = 60


def ids(rows: int, length: int, seed: int) -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


def padded(seed: int, rows: int = 8, length: int = 9) -> dict[str, torch.Tensor]:
    mask = (torch.arange(length) < length - torch.arange(rows)[:, None] % 4).long()
    return {"input_ids": ids(rows, length, seed), "attention_mask": mask}


def bert() -> tuple[nn.Module, Batches]:
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=32, num_labels=3,
    )  # fmt: skip
    return BertForSequenceClassification(config), [padded(seed) for seed in range(6)]


def albert() -> tuple[nn.Module, Batches]:
    config = AlbertConfig(
        vocab_size=VOCABULARY, embedding_size=16, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=32, num_labels=3,
    )  # fmt: skip
    return AlbertForSequenceClassification(config), [padded(seed) for seed in range(6)]


def gpt2() -> tuple[nn.Module, Batches]:
    config = GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=32)
    return GPT2LMHeadModel(config), [{"input_ids": ids(4, 12, seed)} for seed in range(6)]


def llama() -> tuple[nn.Module, Batches]:
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=40, max_position_embeddings=64, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config), [{"input_ids": ids(4, 12, seed)} for seed in range(6)]


def t5() -> tuple[nn.Module, Batches]:
    config = T5Config(
        vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    return T5ForConditionalGeneration(config), [
        {**padded(seed), "decoder_input_ids": ids(8, 5, seed + 100)} for seed in range(6)
    ]


def vit() -> tuple[nn.Module, Batches]:
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=16, patch_size=4,
        num_labels=5,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    return ViTForImageClassification(config), [
        {"pixel_values": torch.randn(4, 3, 16, 16, generator=generator)} for _ in range(6)
    ]


MODELS: dict[str, Callable[[], tuple[nn.Module, Batches]]] = {
    f.__name__: f for f in (bert, albert, gpt2, llama, t5, vit)
}


def made(name: str) -> tuple[Any, Batches]:
    """The model of that name with weights large enough that its layers matter, in eval mode, and its batches."""
    torch.manual_seed(0)
    model, batches = MODELS[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(4)
    return model.eval(), batches
