"""Small models of many shapes, every weight random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    CLIPConfig,
    CLIPModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

_IDS: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
_SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}


def _random(model: Any) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def bert(vocabulary: int) -> Any:
    """Tied output, a bias of its own under two names."""
    return _random(BertForMaskedLM(BertConfig(vocab_size=vocabulary, pad_token_id=0, **_SIZES)))


def roberta(vocabulary: int) -> Any:
    """Positions count from the padding id on."""
    config = RobertaConfig(vocab_size=vocabulary, max_position_embeddings=80, **_SIZES, **_IDS)
    return _random(RobertaForSequenceClassification(config))


def gpt2(vocabulary: int) -> Any:
    return _random(GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_embd=32, n_layer=1, n_head=2, **_IDS)))


def llama(vocabulary: int) -> Any:
    """An output embedding of its own."""
    return _random(LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **_SIZES, **_IDS)))


def t5(vocabulary: int) -> Any:
    """Encoder and decoder have configs of their own."""
    config = T5Config(
        vocab_size=vocabulary, d_model=32, d_kv=16, d_ff=48, num_layers=1, num_heads=2, decoder_start_token_id=0, **_IDS
    )
    return _random(T5ForConditionalGeneration(config))


def bart(vocabulary: int) -> Any:
    """A bias of the logits that is a buffer (1, vocabulary)."""
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
    config = BartConfig(vocab_size=vocabulary, d_model=32, encoder_layers=1, decoder_layers=1, **heads, **_IDS)
    config.forced_eos_token_id = 3
    model = _random(BartForConditionalGeneration(config))
    model.final_logits_bias.normal_()
    return model


def clip(vocabulary: int) -> Any:
    """The vocabulary is a part's."""
    vision = {**_SIZES, "image_size": 16, "patch_size": 8}
    text = {"vocab_size": vocabulary, **_SIZES, **_IDS}
    return _random(CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)))


MODELS: dict[str, Callable[[int], Any]] = {made.__name__: made for made in (bert, roberta, gpt2, llama, t5, bart, clip)}
