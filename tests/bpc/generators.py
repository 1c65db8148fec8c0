"""Tiny models that generate, with heads and FFN dims masked in some layers and not in others."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import nn

import passes
from bpc.dense import DenseModel

VOCABULARY = 61
IDS = torch.randint(3, VOCABULARY, (3, 6), generator=torch.Generator().manual_seed(0))
LEFT = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1]])  # what a decoder is given
RIGHT = LEFT.flip(1)  # what an encoder is given

_TOKENS: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48, "num_attention_heads": 4}
_DECODER: dict[str, Any] = {**_TOKENS, **_SIZES, "num_key_value_heads": 2, "max_position_embeddings": 64}
_BOTH: dict[str, Any] = {
    **_TOKENS, "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "decoder_start_token_id": 1,
}  # fmt: skip


def _llama() -> nn.Module:
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**_DECODER))
    values = {"model.layers.0.self_attn.v_proj": slice(0, 8), "model.layers.1.self_attn.v_proj": slice(0, None, 3)}
    return masked(model, values | {"model.layers.1.mlp.up_proj": slice(0, 20)})


def _qwen3() -> nn.Module:
    model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**_DECODER, head_dim=8))
    return masked(model, {"model.layers.1.self_attn.v_proj": slice(8, 16), "model.layers.0.mlp.up_proj": slice(0, 20)})


def _gemma() -> nn.Module:
    """Layers that look back over a window of 4, and layers that see everything."""
    kinds = ["sliding_attention", "full_attention"]
    config = transformers.Gemma3TextConfig(**_DECODER, head_dim=8, sliding_window=4, layer_types=kinds)
    model = transformers.Gemma3ForCausalLM(config)
    return masked(model, {"model.layers.0.self_attn.v_proj": slice(0, 8), "model.layers.0.mlp.up_proj": slice(0, 48)})


def _gpt2() -> nn.Module:
    config = transformers.GPT2Config(**_TOKENS, n_embd=32, n_layer=2, n_head=4, n_inner=48, n_positions=64)
    model = transformers.GPT2LMHeadModel(config)
    first, second = "transformer.h.0.", "transformer.h.1."
    values = {f"{first}attn.c_attn": slice(64, 80), f"{second}attn.c_attn": slice(64, 96, 3)}
    return masked(model, values | {f"{second}mlp.c_fc": slice(9)})


def _t5() -> nn.Module:
    """Another number of heads in each layer, which T5's forward cannot have: its layers hold less than it sees."""
    config = transformers.T5Config(vocab_size=VOCABULARY, d_model=32, d_kv=8, num_heads=4, d_ff=48, num_layers=2)
    config.decoder_start_token_id = 0
    model = transformers.T5ForConditionalGeneration(config)
    return masked(
        model,
        {
            "encoder.block.0.layer.0.SelfAttention.v": slice(0, 16),
            "decoder.block.0.layer.0.SelfAttention.v": slice(0, 8),
            "decoder.block.1.layer.1.EncDecAttention.v": slice(0, 16),
            "decoder.block.1.layer.2.DenseReluDense.wi": slice(0, 20),
        },
    )


def _bart() -> nn.Module:
    model = transformers.BartForConditionalGeneration(
        transformers.BartConfig(**_BOTH, max_position_embeddings=64, forced_eos_token_id=None)
    )
    return masked(
        model,
        {
            "model.encoder.layers.0.self_attn.v_proj": slice(0, 8),
            "model.decoder.layers.0.self_attn.v_proj": slice(0, 16),
            "model.decoder.layers.1.encoder_attn.v_proj": slice(0, 8),
            "model.decoder.layers.1.fc1": slice(0, 20),
        },
    )


def _whisper() -> nn.Module:
    lengths = {"decoder_layers": 1, "num_mel_bins": 8, "max_source_positions": 12, "max_target_positions": 64}
    quiet = {"suppress_tokens": None, "begin_suppress_tokens": None}
    model = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**{**_BOTH, **lengths, **quiet}))
    return masked(
        model,
        {
            "model.encoder.layers.0.self_attn.v_proj": slice(0, 8),
            "model.decoder.layers.0.self_attn.v_proj": slice(0, 16),
            "model.decoder.layers.0.encoder_attn.v_proj": slice(0, 8),
            "model.decoder.layers.0.fc1": slice(0, 20),
        },
    )


DECODERS: dict[str, Callable[[], nn.Module]] = {"llama": _llama, "qwen3": _qwen3, "gemma": _gemma, "gpt2": _gpt2}
ENCODER_DECODERS: dict[str, Callable[[], nn.Module]] = {"t5": _t5, "bart": _bart, "whisper": _whisper}
FAMILIES = DECODERS | ENCODER_DECODERS


def masked(model: Any, gone: dict[str, slice]) -> nn.Module:
    """Numbers that make every layer matter, then output features of named layers masked, with their biases."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        for name, features in gone.items():
            layer: Any = model.get_submodule(name)
            (layer.weight if isinstance(layer, nn.Linear) else layer.weight.T)[features] = 0  # GPT-2's are transposed
            if layer.bias is not None:
                layer.bias[features] = 0
    model.generation_config.eos_token_id = None  # no row ends before the others
    return model.eval()


@functools.cache
def small(family: str) -> tuple[Any, DenseModel]:
    """The masked model of a family and the small one: the same for every test of a run."""
    model = FAMILIES[family]()
    return model, DenseModel.from_shrink(passes.shrink(passes.trace(model, example(model))), model)


def prompt(model: Any) -> dict[str, torch.Tensor]:
    """What ``generate`` takes: three rows of ragged lengths, or spectrograms."""
    if model.main_input_name == "input_features":
        return {"input_features": torch.randn(3, 8, 24, generator=torch.Generator().manual_seed(2))}
    return {"input_ids": IDS, "attention_mask": RIGHT if model.config.is_encoder_decoder else LEFT}


def example(model: Any) -> dict[str, Any]:
    """What the forward is traced with."""
    decoder = {"decoder_input_ids": IDS[:, :5]} if model.config.is_encoder_decoder else {}
    return {**prompt(model), **decoder, "use_cache": False}
