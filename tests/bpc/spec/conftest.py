"""Roles of tiny models of several layouts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn

from passes.frontend.trace import trace
from passes.structure.roles import Roles, find_roles

CAUSAL: dict[str, Any] = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
CAUSAL |= {"num_key_value_heads": 2, "intermediate_size": 64, "use_cache": False, "pad_token_id": 0}


def ids() -> dict[str, torch.Tensor]:
    return {"input_ids": torch.randint(3, 40, (2, 9))}


def roles_of(model: nn.Module, inputs: Any) -> Roles:
    return find_roles(trace(model, inputs, dynamic=False))


@pytest.fixture(scope="package")
def bert() -> Roles:
    config = hf.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    )
    return roles_of(hf.BertForSequenceClassification(config), ids())


@pytest.fixture(scope="package")
def gpt2() -> Roles:
    config = hf.GPT2Config(vocab_size=50, n_embd=32, n_layer=1, n_head=4, use_cache=False)
    return roles_of(hf.GPT2Model(config), ids())


@pytest.fixture(scope="package")
def llama() -> Roles:
    return roles_of(hf.LlamaModel(hf.LlamaConfig(**CAUSAL)), ids())


@pytest.fixture(scope="package")
def phi3() -> Roles:
    return roles_of(hf.Phi3Model(hf.Phi3Config(**CAUSAL)), ids())


@pytest.fixture(scope="package")
def albert() -> Roles:
    config = hf.AlbertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        embedding_size=16,
    )
    return roles_of(hf.AlbertModel(config), ids())


@pytest.fixture(scope="package")
def bart() -> Roles:
    config = hf.BartConfig(
        vocab_size=50,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
    )
    return roles_of(
        hf.BartModel(config), ids() | {"decoder_input_ids": torch.randint(3, 40, (2, 5)), "use_cache": False}
    )
