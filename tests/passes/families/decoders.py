"""Causal language models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import transformers as hf

from tests.passes.families.base import Family, Inputs, attention, each, ffn, fused, gated, hugging_face, text, tokens
from tests.passes.families.encoders import TEXT

CAUSAL = TEXT | {"num_key_value_heads": 2, "head_dim": 8, "use_cache": False, "tie_word_embeddings": False}
LLAMA_ATTENTION = "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj"


def ids() -> Inputs:
    return {"input_ids": tokens()}


def llama_like(model: Any, config: Any, **options: Any) -> Family:
    layers = "model.layers.{}."
    forms = ("eager",) if model is hf.Gemma2ForCausalLM else ("sdpa", "eager")
    keys = {"rigid_keys": True} if model is hf.Qwen3ForCausalLM else {"rotary": True}
    return Family(
        hugging_face(model, config, CAUSAL | options),
        text,
        each(layers, 2, lambda p: attention(p, LLAMA_ATTENTION, 4, 2, **keys)),
        each(layers, 2, lambda p: ffn(p, "mlp.up_proj", "mlp.down_proj", "mlp.gate_proj")),
        forms,
    )


DECODERS: Mapping[str, Family] = {
    "gpt2": Family(
        hugging_face(
            hf.GPT2LMHeadModel,
            hf.GPT2Config,
            {
                "vocab_size": 50,
                "n_embd": 32,
                "n_head": 4,
                "n_layer": 2,
                "n_inner": 48,
                "n_positions": 24,
                "use_cache": False,
            },
        ),
        ids,
        each("transformer.h.{}.attn.", 2, lambda p: fused(f"{p}c_attn", f"{p}c_proj", out_dim=1)),
        each("transformer.h.{}.mlp.", 2, lambda p: ffn(p, "c_fc", "c_proj", out_dim=1)),
    ),
    "llama": llama_like(hf.LlamaForCausalLM, hf.LlamaConfig),
    "qwen3": llama_like(hf.Qwen3ForCausalLM, hf.Qwen3Config),
    "mistral": llama_like(hf.MistralForCausalLM, hf.MistralConfig, sliding_window=4),
    "gemma2": llama_like(hf.Gemma2ForCausalLM, hf.Gemma2Config, sliding_window=4, query_pre_attn_scalar=8),
    "phi3": Family(
        hugging_face(hf.Phi3ForCausalLM, hf.Phi3Config, CAUSAL | {"bos_token_id": 1, "eos_token_id": 2}),
        text,
        each(
            "model.layers.{}.self_attn.",
            2,
            lambda p: fused(f"{p}qkv_proj", f"{p}o_proj", (32, 16, 16), rotary=True),
        ),
        each("model.layers.{}.mlp.", 2, lambda p: gated(f"{p}gate_up_proj", f"{p}down_proj")),
    ),
}
