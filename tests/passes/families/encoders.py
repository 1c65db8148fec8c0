"""Text encoders: BERT and its relatives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import transformers as hf

from tests.passes.families.base import Family, attention, each, ffn, fused, gated, hugging_face, text
from tests.passes.family_structure import Part, RelativeAttention

TEXT: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "pad_token_id": 0,
    "max_position_embeddings": 24,
}


BERT_ATTENTION = "attention.self.query attention.self.key attention.self.value attention.output.dense"


def relative(prefix: str) -> RelativeAttention:
    """XLNet's attention, written as einsum."""
    q, k, v, r = (Part(f"{prefix}{name}", out_dim=1) for name in "qkvr")
    biases = (f"{prefix}r_w_bias", f"{prefix}r_r_bias")
    return RelativeAttention(q, k, v, Part(f"{prefix}o"), 4, 4, relative=r, biases=biases)


def bert_like(model: Any, config: Any, layers: str = "encoder.layer.{}.", **more: Any) -> Family:
    return Family(
        hugging_face(model, config, TEXT | more.pop("options", {})),
        text,
        each(layers, 2, lambda p: attention(p, BERT_ATTENTION)),
        each(layers, 2, lambda p: ffn(p, "intermediate.dense", "output.dense")),
        inert=("self.key.bias",),
        **more,
    )


ENCODERS: Mapping[str, Family] = {
    "bert": bert_like(hf.BertForSequenceClassification, hf.BertConfig, "bert.encoder.layer.{}."),
    "roberta": bert_like(hf.RobertaModel, hf.RobertaConfig, options={"max_position_embeddings": 32}),
    "electra": bert_like(hf.ElectraModel, hf.ElectraConfig, options={"embedding_size": 16}),
    "distilbert": Family(
        hugging_face(
            hf.DistilBertModel,
            hf.DistilBertConfig,
            {"vocab_size": 50, "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 24},
        ),
        text,
        each("transformer.layer.{}.attention.", 2, lambda p: attention(p, "q_lin k_lin v_lin out_lin")),
        each("transformer.layer.{}.ffn.", 2, lambda p: ffn(p, "lin1", "lin2")),
        inert=("k_lin.bias",),
    ),
    "albert": Family(
        hugging_face(hf.AlbertModel, hf.AlbertConfig, TEXT | {"embedding_size": 16}),
        text,
        each(
            "encoder.albert_layer_groups.0.albert_layers.{}.attention.",
            1,
            lambda p: attention(p, "query key value dense"),
        ),
        each("encoder.albert_layer_groups.0.albert_layers.{}.", 1, lambda p: ffn(p, "ffn", "ffn_output")),
        inert=("key.bias",),
    ),
    "mpnet": Family(
        hugging_face(hf.MPNetModel, hf.MPNetConfig, TEXT | {"max_position_embeddings": 32}),
        text,
        each(
            "encoder.layer.{}.attention.attn.",
            2,
            lambda p: attention(p, "q k v o", tables=(("encoder.relative_attention_bias.weight", 1),)),
        ),
        each("encoder.layer.{}.", 2, lambda p: ffn(p, "intermediate.dense", "output.dense")),
        ("eager",),
        inert=("attn.k.bias",),
    ),
    "deberta-v2": Family(
        hugging_face(
            hf.DebertaV2Model,
            hf.DebertaV2Config,
            TEXT
            | {
                "relative_attention": True,
                "pos_att_type": ["p2c", "c2p"],
                "share_att_key": True,
                "position_buckets": 4,
            },
        ),
        text,
        each(
            "encoder.layer.{}.attention.",
            2,
            lambda p: attention(p, "self.query_proj self.key_proj self.value_proj output.dense", position_keys=True),
        ),
        each("encoder.layer.{}.", 2, lambda p: ffn(p, "intermediate.dense", "output.dense")),
        ("eager",),
    ),
    "modernbert": Family(
        hugging_face(
            hf.ModernBertModel,
            hf.ModernBertConfig,
            TEXT
            | {
                "global_attn_every_n_layers": 2,
                "bos_token_id": 1,
                "eos_token_id": 2,
                "cls_token_id": 1,
                "sep_token_id": 2,
            },
        ),
        text,
        each("layers.{}.", 2, lambda p: fused(f"{p}attn.Wqkv", f"{p}attn.Wo", rotary=True)),
        each("layers.{}.", 2, lambda p: gated(f"{p}mlp.Wi", f"{p}mlp.Wo")),
    ),
    "xlnet": Family(
        lambda form: hf.XLNetModel(hf.XLNetConfig(vocab_size=50, d_model=32, n_layer=2, n_head=4, d_inner=48)),
        lambda: dict(text()) | {"use_mems": False},
        each("layer.{}.rel_attn.", 2, relative),
        each("layer.{}.ff.", 2, lambda p: ffn(p, "layer_1", "layer_2")),
        ("einsum",),
        inert=("r_s_bias", "seg_embed", "mask_emb"),  # no second segment, no masked positions
    ),
}
