"""Roles are read off the graph: every family, both attention forms, and modules written by hand."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn

from passes.frontend.trace import trace
from passes.structure.role import Family
from passes.structure.roles import Roles, find_roles

BASE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "pad_token_id": 0,
}
VISION = {k: v for k, v in BASE.items() if k not in ("vocab_size", "pad_token_id")} | {
    "image_size": 16,
    "patch_size": 8,
}
CAUSAL = BASE | {"num_key_value_heads": 2, "max_position_embeddings": 64, "use_cache": False}
SEQ2SEQ = {"vocab_size": 50, "d_model": 32, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
SEQ2SEQ |= {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
T5 = {"vocab_size": 50, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4}
WHISPER = {"num_mel_bins": 16, "max_source_positions": 20, "max_target_positions": 20, "decoder_start_token_id": 1}


def ids(batch: int = 2, length: int = 12) -> dict[str, Any]:
    return {"input_ids": torch.randint(3, 40, (batch, length))}


def pair() -> dict[str, Any]:
    return ids() | {"decoder_input_ids": torch.randint(3, 40, (2, 7)), "use_cache": False}


def image() -> dict[str, Any]:
    return {"pixel_values": torch.randn(2, 3, 16, 16)}


def audio() -> dict[str, Any]:
    return {"input_features": torch.randn(2, 16, 40)} | {k: v for k, v in pair().items() if k != "input_ids"}


def each(count: int, *roles: str) -> dict[str, int]:
    return dict.fromkeys(roles, count)


SEPARATE = tuple(f"attention.{part}" for part in ("query", "key", "value", "output"))
FFN = ("ffn.up", "ffn.down")
GATED = ("ffn.up", "ffn.gate", "ffn.down")
HEAD = {"mlp.up": 1, "mlp.down": 1}  # a classification head: no residual connection around it

FAMILIES: dict[str, tuple[type, type, dict[str, Any], Any, dict[str, int]]] = {
    "bert": (hf.BertForSequenceClassification, hf.BertConfig, BASE, ids, each(2, *SEPARATE, *FFN) | HEAD),
    "roberta": (hf.RobertaModel, hf.RobertaConfig, BASE, ids, each(2, *SEPARATE, *FFN) | {"other": 1}),
    "electra": (hf.ElectraModel, hf.ElectraConfig, BASE, ids, each(2, *SEPARATE, *FFN) | {"other": 1}),
    "distilbert": (
        hf.DistilBertModel,
        hf.DistilBertConfig,
        {"vocab_size": 50, "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4},
        ids,
        each(2, *SEPARATE, *FFN),
    ),
    "albert": (hf.AlbertModel, hf.AlbertConfig, BASE, ids, each(1, *SEPARATE, *FFN) | {"other": 2}),
    "mpnet": (hf.MPNetModel, hf.MPNetConfig, BASE, ids, each(2, *SEPARATE, *FFN) | {"other": 1}),
    "deberta-v2": (
        hf.DebertaV2Model,
        hf.DebertaV2Config,
        BASE
        | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "share_att_key": True, "position_buckets": 4},
        ids,
        each(2, *SEPARATE, *FFN),
    ),
    "modernbert": (
        hf.ModernBertModel,
        hf.ModernBertConfig,
        BASE,
        ids,
        each(2, "attention.qkv", "attention.output", "ffn.gate_up", "ffn.down"),
    ),
    "vit": (hf.ViTForImageClassification, hf.ViTConfig, VISION, image, each(2, *SEPARATE, *FFN) | {"other": 1}),
    "dinov2": (hf.Dinov2Model, hf.Dinov2Config, VISION, image, each(2, *SEPARATE, *FFN)),
    "swin": (
        hf.SwinModel,
        hf.SwinConfig,
        {"image_size": 16, "patch_size": 2, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4},
        image,
        each(2, *SEPARATE, *FFN) | {"other": 1},
    ),
    "gpt2": (
        hf.GPT2LMHeadModel,
        hf.GPT2Config,
        {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4, "use_cache": False},
        ids,
        each(2, "attention.qkv", "attention.output", *FFN) | {"other": 1},
    ),
    "gpt-neox": (
        hf.GPTNeoXModel,
        hf.GPTNeoXConfig,
        BASE | {"use_cache": False},
        ids,
        each(2, "attention.qkv", "attention.output", *FFN),
    ),
    "bloom": (
        hf.BloomModel,
        hf.BloomConfig,
        {"vocab_size": 50, "hidden_size": 32, "n_layer": 2, "n_head": 4, "use_cache": False},
        ids,
        each(2, "attention.qkv", "attention.output", *FFN),
    ),
    "falcon": (
        hf.FalconModel,
        hf.FalconConfig,
        {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "use_cache": False},
        ids,
        each(2, "attention.qkv", "attention.output", *FFN),
    ),
    "clip": (
        hf.CLIPVisionModel,
        hf.CLIPVisionConfig,
        VISION,
        image,
        each(2, *SEPARATE, *FFN),
    ),
    "siglip": (  # the pooling head attends with a learned query
        hf.SiglipVisionModel,
        hf.SiglipVisionConfig,
        VISION,
        image,
        each(2, "attention.query", "attention.key", "attention.value")
        | {"attention.qkv": 1}
        | each(3, "attention.output", *FFN),
    ),
    "llama": (hf.LlamaForCausalLM, hf.LlamaConfig, CAUSAL, ids, each(2, *SEPARATE, *GATED) | {"other": 1}),
    "qwen3": (hf.Qwen3Model, hf.Qwen3Config, CAUSAL | {"head_dim": 8}, ids, each(2, *SEPARATE, *GATED)),
    "gemma2": (hf.Gemma2Model, hf.Gemma2Config, CAUSAL | {"head_dim": 8}, ids, each(2, *SEPARATE, *GATED)),
    "phi3": (
        hf.Phi3Model,
        hf.Phi3Config,
        CAUSAL,
        ids,
        each(2, "attention.qkv", "attention.output", "ffn.gate_up", "ffn.down"),
    ),
    "bart": (hf.BartModel, hf.BartConfig, SEQ2SEQ, pair, each(3, *SEPARATE) | each(2, *FFN)),
    "t5": (hf.T5Model, hf.T5Config, T5, pair, each(3, *SEPARATE) | each(2, *FFN)),
    "t5-v1.1": (
        hf.T5Model,
        hf.T5Config,
        T5 | {"feed_forward_proj": "gated-gelu"},
        pair,
        each(3, *SEPARATE) | each(2, *GATED),
    ),
    "whisper": (
        hf.WhisperModel,
        hf.WhisperConfig,
        SEQ2SEQ | WHISPER | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
        audio,
        each(3, *SEPARATE) | each(2, *FFN),
    ),
}
EAGER_ONLY = ("mpnet", "deberta-v2", "gemma2", "bloom")


def roles_of(family: str, attention: str = "eager", dynamic: bool = False) -> Roles:
    model_class, config_class, options, inputs, _ = FAMILIES[family]
    model = model_class._from_config(config_class(**options), attn_implementation=attention)  # type: ignore[attr-defined]
    return find_roles(trace(model, inputs(), dynamic=dynamic))


@pytest.mark.parametrize(
    ("family", "attention"),
    [(f, a) for f in FAMILIES for a in ("eager", "sdpa") if a == "eager" or f not in EAGER_ONLY],
)
def test_every_linear_of_every_family_gets_its_role(family: str, attention: str) -> None:
    roles = roles_of(family, attention)
    assert Counter(r.role for r in roles) == FAMILIES[family][4]
    heads = {r.head_dim for r in roles if r.role.family is Family.ATTENTION}
    assert heads == {8}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_symbolic_batch_and_sequence_change_nothing(attention: str) -> None:
    static, dynamic = (roles_of("llama", attention, dynamic=d) for d in (False, True))
    assert [(r.weight, r.role, r.heads, r.head_dim) for r in static] == [
        (r.weight, r.role, r.heads, r.head_dim) for r in dynamic
    ]


def test_grouped_query_attention_has_fewer_key_heads() -> None:
    roles = roles_of("llama")
    heads = {r.role: r.heads for r in roles if r.block_id == "attention.0"}
    assert heads == {"attention.query": 4, "attention.key": 2, "attention.value": 2, "attention.output": 4}


def test_conv1d_stores_outputs_in_dim_1() -> None:
    roles = roles_of("gpt2")
    fused = roles["transformer.h.0.attn.c_attn.weight"]
    assert (fused.shape, fused.out_dim, fused.out_features, fused.in_features) == ((32, 96), 1, 96, 32)
    assert fused.bias == "transformer.h.0.attn.c_attn.bias"


def test_tied_names_lead_to_one_entry() -> None:
    head = roles_of("gpt2")["lm_head.weight"]
    assert set(head.names) == {"lm_head.weight", "transformer.wte.weight"}


@pytest.mark.parametrize("family", ["bart", "t5", "whisper"])
def test_cross_attention_tells_decoder_from_encoder(family: str) -> None:
    roles = roles_of(family)
    sides = {r.weight: r.stack for r in roles if r.role != "other"}
    assert all(side == ("decoder" if ".decoder" in f".{weight}" else "encoder") for weight, side in sides.items())


@pytest.mark.parametrize("family", ["llama", "siglip"])
def test_without_cross_attention_there_are_no_sides(family: str) -> None:
    assert {r.stack for r in roles_of(family)} == {None}


def test_keys_behind_a_convolution_are_still_self_attention() -> None:
    class Reduced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))
            self.reduce = nn.Conv1d(8, 8, 2, stride=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            short = self.reduce(x.transpose(1, 2)).transpose(1, 2)
            mixed = nn.functional.scaled_dot_product_attention(self.q(x), self.k(short), self.v(short))
            return x + self.out(mixed)

    roles = find_roles(trace(Reduced(), torch.randn(2, 6, 8), dynamic=False))
    assert [(r.role, r.stack) for r in roles] == [(f"attention.{p}", None) for p in ("query", "key", "value", "output")]


def test_fused_gates_are_two_stretches() -> None:
    tiles = {b.name: b.tiles for b in roles_of("phi3").blocks}
    assert tiles["ffn.0"] == 2
    assert tiles["attention.0"] == 1


class Attention(nn.Module):
    """Attention written three ways over one fused projection."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.qkv, self.out, self.form = nn.Linear(32, 96), nn.Linear(32, 32), form

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, _ = x.shape
        if self.form == "einsum":
            q, k, v = self.qkv(x).view(b, t, 3, 4, 8).unbind(2)  # each (B, T, H, d)
            probs = torch.einsum("bqhd,bkhd->bhqk", q, k).softmax(-1)
            mixed = torch.einsum("bhqk,bkhd->bqhd", probs, v)
        else:
            q, k, v = self.qkv(x).view(b, t, 3, 4, 8).permute(2, 0, 3, 1, 4)  # each (B, H, T, d)
            q, k, v = (y.reshape(b * 4, t, 8) for y in (q, k, v))  # heads merged into the batch
            if self.form == "keys first":
                probs = torch.bmm(k, q.transpose(1, 2)).softmax(1)  # (B·H, T_k, T_q): softmax over the keys
                mixed = torch.bmm(probs.transpose(1, 2), v)
            else:
                probs = torch.baddbmm(x.new_zeros(1), q, k.transpose(1, 2)).softmax(-1)
                mixed = torch.bmm(probs, v)
            mixed = mixed.view(b, 4, t, 8).transpose(1, 2)  # (B, T, H, d)
        return self.out(mixed.reshape(b, t, 32))


@pytest.mark.parametrize("form", ["einsum", "baddbmm", "keys first"])
def test_attention_written_by_hand(form: str) -> None:
    roles = find_roles(trace(Attention(form), torch.randn(2, 5, 32)))
    assert {r.weight: (r.role, r.head_dim) for r in roles} == {
        "qkv.weight": ("attention.qkv", 8),
        "out.weight": ("attention.output", 8),
    }


class SplitKeys(nn.Module):
    """Separate projections, softmax over dim -2: the key is the left operand."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third, self.out = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = torch.matmul(self.first(x), self.second(x).transpose(-1, -2)).softmax(-2)
        return self.out(scores.transpose(-1, -2) @ self.third(x))


def test_the_softmax_says_which_operand_is_the_key() -> None:
    roles = find_roles(trace(SplitKeys(), torch.randn(2, 5, 8)))
    assert [(r.weight, r.role) for r in roles] == [
        ("first.weight", "attention.key"),
        ("second.weight", "attention.query"),
        ("third.weight", "attention.value"),
        ("out.weight", "attention.output"),
    ]


def test_packed_multihead_attention_splits_its_weight() -> None:
    layer = nn.TransformerDecoderLayer(32, 4, 64, batch_first=True)
    roles = find_roles(trace(layer, (torch.randn(2, 5, 32), torch.randn(2, 7, 32))))
    assert {r.weight: (r.role, r.head_dim) for r in roles} == {
        "self_attn.in_proj_weight": ("attention.qkv", 8),
        "self_attn.out_proj.weight": ("attention.output", 8),
        "multihead_attn.in_proj_weight": ("attention.qkv", 8),
        "multihead_attn.out_proj.weight": ("attention.output", 8),
        "linear1.weight": ("ffn.up", None),
        "linear2.weight": ("ffn.down", None),
    }


class Stack(nn.Module):
    """What looks like attention or an FFN, and is not."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = self.a(x).softmax(1) * x  # softmax, but no product of queries and keys
        x = x + self.c(self.b(pooled))  # two linears, no nonlinearity
        return self.d(nn.functional.layer_norm(x, (8,)))


def test_lookalikes_stay_other() -> None:
    roles = find_roles(trace(Stack(), torch.randn(2, 5, 8)))
    assert {r.role for r in roles} == {"other"}


class Bare(nn.Module):
    """Bare parameters: x @ W + b, and an activation written out."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Parameter(torch.randn(8, 16)), nn.Parameter(torch.randn(8, 16))
        self.bias = nn.Parameter(torch.randn(16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = x @ self.up + self.bias
        hidden = hidden * torch.sigmoid(1.702 * hidden)
        return x + hidden @ self.down.t()


def test_bare_parameters() -> None:
    up, down = find_roles(trace(Bare(), torch.randn(2, 5, 8)))
    assert (up.weight, up.bias, up.role, up.out_dim) == ("up", "bias", "ffn.up", 1)
    assert (down.weight, down.bias, down.role, down.out_dim) == ("down", None, "ffn.down", 0)


class Reused(nn.Module):
    """One weight makes the queries and reads the output: no one part, so in no block."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = nn.functional.scaled_dot_product_attention(self.twice(x), self.key(x), self.value(x))
        return x + self.twice(mixed)


def test_a_weight_of_two_parts_is_in_no_block() -> None:
    roles = find_roles(trace(Reused(), torch.randn(2, 5, 8), dynamic=False))
    assert {r.weight: (r.role, r.block_id, r.heads) for r in roles} == {
        "twice.weight": ("other", None, None),
        "key.weight": ("attention.key", "attention.0", 1),
        "value.weight": ("attention.value", "attention.0", 1),
    }
