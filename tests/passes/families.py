"""Every architecture of the suite as a tiny random model, with its prunable structure written down by hand.

`FAMILIES` is literal: name -> `Family`. Weights are scaled so that every parameter moves the output (exactness trap
20); `test_architectures` asserts that they do. Sizes: 32 channels, 4 heads of 8, 48 FFN units, one or two layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf
from torch import nn

import tests.passes.family_modules as modules
from tests.passes.family_structure import Attention, FeedForward, Part

Inputs = Mapping[str, Any]

TEXT: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "pad_token_id": 0,
    "max_position_embeddings": 24,
}
IMAGE: dict[str, Any] = {
    "image_size": 16,
    "patch_size": 4,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
CAUSAL = TEXT | {"num_key_value_heads": 2, "head_dim": 8, "use_cache": False, "tie_word_embeddings": False}
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


@dataclass(frozen=True)
class Family:
    """``build(attention implementation)`` makes the model; ``inputs()`` an example.

    ``inert``: parameters that cannot move the output (a key bias shifts a softmax row), as name endings.
    """

    build: Callable[[str], nn.Module]
    inputs: Callable[[], Inputs]
    attention: tuple[Attention, ...] = ()
    feed_forward: tuple[FeedForward, ...] = ()
    forms: tuple[str, ...] = ("sdpa", "eager")
    inert: tuple[str, ...] = ()


def make(family: Family, form: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, dict[str, Any]]:
    """A scaled model in eval mode and its example inputs, the same numbers on every call."""
    torch.manual_seed(0)
    model = family.build(form).to(dtype).eval()
    scale_parameters(model)
    inputs = {k: v.to(dtype) if _is_float(v) else v for k, v in family.inputs().items()}
    return model, inputs


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def scale_parameters(model: nn.Module) -> None:
    """Random weights large enough that every part matters, small enough that softmaxes do not saturate."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        norm = "Norm" in type(module).__name__
        for name, parameter in module.named_parameters(recurse=False):
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if norm and name == "weight":
                noise = 1 + 0.3 * noise
            elif parameter.dim() <= 1:
                noise = 0.5 * noise
            elif not isinstance(module, nn.Embedding):
                noise = noise * 1.2 / parameter[0].numel() ** 0.5
            with torch.no_grad():
                parameter.copy_(noise)


# --------------------------------------------------------------------------------------------------------- inputs


def tokens(batch: int = 2, length: int = 7) -> torch.Tensor:
    return torch.randint(3, 50, (batch, length), generator=torch.Generator().manual_seed(2))


def text() -> Inputs:
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, 5:] = 0
    return {"input_ids": tokens(), "attention_mask": mask}


def ids() -> Inputs:
    return {"input_ids": tokens()}


def pairs() -> Inputs:
    return {"input_ids": tokens(), "decoder_input_ids": tokens(2, 5), "use_cache": False}


def image() -> Inputs:
    return {"pixel_values": torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))}


def audio() -> Inputs:
    sound = torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(3))
    return {"input_features": sound, "decoder_input_ids": tokens(2, 5), "use_cache": False}


def text_and_image() -> Inputs:
    return dict(text()) | {"pixel_values": torch.cat([image()["pixel_values"]] * 2)[:3]}


def dense(length: int = 5) -> torch.Tensor:
    return torch.randn(2, length, 32, generator=torch.Generator().manual_seed(length))


# ------------------------------------------------------------------------------------------------------- structure


def part(name: str, start: int = 0, size: int | None = None, out_dim: int = 0, joint: str = ".") -> Part:
    return Part(f"{name}{joint}weight", f"{name}{joint}bias", start, size, out_dim)


def attention(prefix: str, names: str, heads: int = 4, kv_heads: int | None = None, **more: Any) -> Attention:
    """Four separate projections, ``names`` being those of query, key, value and output."""
    return Attention(*(part(f"{prefix}{n}") for n in names.split()), heads, kv_heads or heads, **more)  # type: ignore[misc]


def fused(
    name: str, output: str, sizes: tuple[int, int, int] = (32, 32, 32), out_dim: int = 0, joint: str = ".", **more: Any
) -> Attention:
    """Query, key and value stacked in one weight."""
    starts = (0, sizes[0], sizes[0] + sizes[1])
    stacked = [part(name, s, n, out_dim, joint) for s, n in zip(starts, sizes, strict=True)]
    heads, kv_heads = sizes[0] // 8, sizes[1] // 8
    return Attention(*stacked, part(output, out_dim=out_dim), heads, kv_heads, **more)


def ffn(
    prefix: str, up: str, down: str, gate: str | None = None, out_dim: int = 0, then: tuple[str, ...] = ()
) -> FeedForward:
    return FeedForward(
        part(f"{prefix}{up}", out_dim=out_dim),
        part(f"{prefix}{down}", out_dim=out_dim),
        None if gate is None else part(f"{prefix}{gate}"),
        then,
    )


def gated(name: str, down: str, gate_first: bool = True) -> FeedForward:
    """Gate and up stacked in one weight of 2 x 48 rows."""
    first, second = part(name, 0, 48), part(name, 48, 48)
    return FeedForward(second if gate_first else first, part(down), first if gate_first else second)


def each(template: str, count: int, unit: Callable[[str], Any]) -> tuple[Any, ...]:
    return tuple(unit(template.format(i)) for i in range(count))


def hugging_face(model: Any, config: Any, options: dict[str, Any]) -> Callable[[str], nn.Module]:
    return lambda form: model._from_config(config(**options), attn_implementation=form)


BERT_ATTENTION = "attention.self.query attention.self.key attention.self.value attention.output.dense"
LLAMA_ATTENTION = "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj"
BART_ATTENTION = "q_proj k_proj v_proj out_proj"
VIT_ATTENTION = "attention.q_proj attention.k_proj attention.v_proj attention.o_proj"


def bert_like(model: Any, config: Any, layers: str = "encoder.layer.{}.", **more: Any) -> Family:
    return Family(
        hugging_face(model, config, TEXT | more.pop("options", {})),
        text,
        each(layers, 2, lambda p: attention(p, BERT_ATTENTION)),
        each(layers, 2, lambda p: ffn(p, "intermediate.dense", "output.dense")),
        inert=("self.key.bias",),
        **more,
    )


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


def vit_like(model: Any, config: Any, layers: str = "layers.{}.", **more: Any) -> Family:
    tables, scales = more.pop("tables", ()), more.pop("scales", ("", ""))
    after = [lambda p, s=s: (p + s,) if s else () for s in scales]
    return Family(
        hugging_face(model, config, IMAGE | more.pop("options", {})),
        image,
        each(
            layers,
            2,
            lambda p: attention(
                p, VIT_ATTENTION, tables=tuple((f"{p}{name}", dim) for name, dim in tables), then=after[0](p)
            ),
        ),
        each(layers, 2, lambda p: ffn(p, "mlp.fc1", "mlp.fc2", then=after[1](p))),
        inert=("k_proj.bias", "mask_token"),
        **more,
    )


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


SWIN_BLOCKS = (("encoder.layers.0.blocks.0.", 2), ("encoder.layers.0.blocks.1.", 2), ("encoder.layers.1.blocks.0.", 4))
CLIP_STACKS = ("text_model.encoder.layers.0.", "text_model.encoder.layers.1.", "vision_model.encoder.layers.0.")
PACKED = "self_attn.in_proj"


FAMILIES: Mapping[str, Family] = {
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
    "vit": vit_like(hf.ViTForImageClassification, hf.ViTConfig, "vit.layers.{}."),
    "dinov2": vit_like(
        hf.Dinov2Model,
        hf.Dinov2Config,
        "encoder.layer.{}.",
        options={"mlp_ratio": 2, "layerscale_value": 0.5},
        scales=("layer_scale1.lambda1", "layer_scale2.lambda1"),
    ),
    "beit": vit_like(
        hf.BeitModel,
        hf.BeitConfig,
        options={"use_relative_position_bias": True, "layer_scale_init_value": 0.5},
        tables=(("relative_position_bias.relative_position_bias_table", 1),),
        scales=("lambda_1", "lambda_2"),
    ),
    "swin": Family(
        hugging_face(
            hf.SwinModel,
            hf.SwinConfig,
            {
                "image_size": 16,
                "patch_size": 2,
                "embed_dim": 16,
                "depths": [2, 1],
                "num_heads": [2, 4],
                "window_size": 4,
                "mlp_ratio": 2.0,
            },
        ),
        image,
        tuple(
            attention(
                p,
                VIT_ATTENTION,
                heads,
                tables=((f"{p}attention.relative_position_bias.relative_position_bias_table", 1),),
            )
            for p, heads in SWIN_BLOCKS
        ),
        tuple(ffn(p, "mlp.fc1", "mlp.fc2") for p, _ in SWIN_BLOCKS),
        inert=("k_proj.bias",),
    ),
    "clip": Family(
        lambda form: hf.CLIPModel._from_config(
            hf.CLIPConfig(
                text_config=TEXT | {"projection_dim": 16, "bos_token_id": 1, "eos_token_id": 2},
                vision_config=IMAGE | {"projection_dim": 16, "num_hidden_layers": 1},
                projection_dim=16,
            ),
            attn_implementation=form,
        ),
        text_and_image,
        tuple(attention(f"{p}self_attn.", BART_ATTENTION) for p in CLIP_STACKS),
        tuple(ffn(p, "mlp.fc1", "mlp.fc2") for p in CLIP_STACKS),
        inert=("k_proj.bias",),
    ),
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
    "nn-encoder": Family(
        modules.encoder,
        lambda: {"src": dense()},
        each("layers.{}.", 2, lambda p: fused(p + PACKED, f"{p}self_attn.out_proj", joint="_")),
        each("layers.{}.", 2, lambda p: ffn(p, "linear1", "linear2")),
        ("sdpa",),
    ),
    "nn-decoder": Family(
        modules.decoder,
        lambda: {"tgt": dense(), "memory": dense(7)},
        (
            fused("layers.0.self_attn.in_proj", "layers.0.self_attn.out_proj", joint="_"),
            fused("layers.0.multihead_attn.in_proj", "layers.0.multihead_attn.out_proj", joint="_"),
        ),
        (ffn("layers.0.", "linear1", "linear2"),),
        ("sdpa",),
    ),
    "nn-attention": Family(
        modules.CrossAttention,
        lambda: {"x": dense(), "y": dense(7)},
        (fused("attention.in_proj", "attention.out_proj", joint="_"),),
    ),
    "timm": Family(
        modules.FusedViT,
        lambda: {"x": dense()},
        each("blocks.{}.", 2, lambda p: fused(f"{p}qkv", f"{p}proj")),
        each("blocks.{}.", 2, lambda p: ffn(p, "fc1", "fc2")),
    ),
    "mixer": Family(
        modules.mixer,
        lambda: {"input": dense()},
        (),
        each("{}.tokens.", 2, lambda p: ffn(p, "0", "2")) + each("{}.channels.", 2, lambda p: ffn(p, "0", "2")),
        ("none",),
    ),
}
