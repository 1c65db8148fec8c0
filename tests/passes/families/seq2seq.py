"""Encoder-decoder models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers as hf

from tests.passes.families.base import Family, Inputs, attention, ffn, hugging_face, tokens
from tests.passes.family_structure import FeedForward

SEQ2SEQ: dict[str, Any] = {
    "vocab_size": 50,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 24,
    "pad_token_id": 1,
}
T5 = {"vocab_size": 50, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 1, "num_heads": 4}
WHISPER = {"num_mel_bins": 8, "max_source_positions": 16, "max_target_positions": 24, "decoder_start_token_id": 1}
BART_ATTENTION = "q_proj k_proj v_proj out_proj"


def pairs() -> Inputs:
    return {"input_ids": tokens(), "decoder_input_ids": tokens(2, 5), "use_cache": False}


def audio() -> Inputs:
    sound = torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(3))
    return {"input_features": sound, "decoder_input_ids": tokens(2, 5), "use_cache": False}


def t5_like(**options: Any) -> Family:
    stem = "{}.block.{}.layer.{}.{}."
    tables = {
        s: ((f"{s}.block.0.layer.0.SelfAttention.relative_attention_bias.weight", 1),) for s in ("encoder", "decoder")
    }
    where = (("encoder", 0, 1), ("encoder", 1, 1), ("decoder", 0, 2))

    def feed(stack: str, block: int, layer: int) -> FeedForward:
        prefix = stem.format(stack, block, layer, "DenseReluDense")
        return ffn(prefix, "wi_1", "wo", "wi_0") if options else ffn(prefix, "wi", "wo")

    return Family(
        hugging_face(hf.T5ForConditionalGeneration, hf.T5Config, T5 | options),
        pairs,
        (
            attention(stem.format("encoder", 0, 0, "SelfAttention"), "q k v o", tables=tables["encoder"]),
            attention(stem.format("encoder", 1, 0, "SelfAttention"), "q k v o", tables=tables["encoder"]),
            attention(stem.format("decoder", 0, 0, "SelfAttention"), "q k v o", tables=tables["decoder"]),
            attention(stem.format("decoder", 0, 1, "EncDecAttention"), "q k v o"),
        ),
        tuple(feed(*place) for place in where),
        ("eager",) if options else ("sdpa", "eager"),
    )


def seq2seq(model: Any, config: Any, inputs: Callable[[], Inputs], stem: str = "", **options: Any) -> Family:
    encoder, decoder = f"{stem}encoder.layers.0.", f"{stem}decoder.layers.0."
    return Family(
        hugging_face(model, config, SEQ2SEQ | options),
        inputs,
        (
            attention(f"{encoder}self_attn.", BART_ATTENTION),
            attention(f"{decoder}self_attn.", BART_ATTENTION),
            attention(f"{decoder}encoder_attn.", BART_ATTENTION),
        ),
        (ffn(encoder, "fc1", "fc2"), ffn(decoder, "fc1", "fc2")),
        inert=("k_proj.bias",),
    )


SEQ2SEQ_MODELS: Mapping[str, Family] = {
    "whisper": seq2seq(
        hf.WhisperForConditionalGeneration,
        hf.WhisperConfig,
        audio,
        "model.",
        **WHISPER,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "bart": seq2seq(hf.BartModel, hf.BartConfig, pairs),
    "t5": t5_like(),
    "t5-v1.1": t5_like(feed_forward_proj="gated-gelu", tie_word_embeddings=False),
}
