"""Image encoders, and CLIP's two towers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers as hf

from tests.passes.families.base import Family, Inputs, attention, each, ffn, hugging_face, part, text
from tests.passes.families.encoders import TEXT
from tests.passes.families.seq2seq import BART_ATTENTION

IMAGE: dict[str, Any] = {
    "image_size": 16,
    "patch_size": 4,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}


VIT_ATTENTION = "attention.q_proj attention.k_proj attention.v_proj attention.o_proj"
SWIN_BLOCKS = (("encoder.layers.0.blocks.0.", 2), ("encoder.layers.0.blocks.1.", 2), ("encoder.layers.1.blocks.0.", 4))
SEGFORMER_BLOCKS = (("stages.0.blocks.0.", 2), ("stages.1.blocks.0.", 4))
CLIP_STACKS = ("text_model.encoder.layers.0.", "text_model.encoder.layers.1.", "vision_model.encoder.layers.0.")


def image() -> Inputs:
    return {"pixel_values": torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))}


def text_and_image() -> Inputs:
    return dict(text()) | {"pixel_values": torch.cat([image()["pixel_values"]] * 2)[:3]}


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


VISION: Mapping[str, Family] = {
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
    "segformer": Family(
        hugging_face(
            hf.SegformerModel,
            hf.SegformerConfig,
            {
                "num_encoder_blocks": 2,
                "depths": [1, 1],
                "sr_ratios": [2, 1],
                "hidden_sizes": [16, 32],
                "patch_sizes": [3, 3],
                "strides": [2, 2],
                "num_attention_heads": [2, 4],
                "mlp_ratios": [2, 2],
            },
        ),
        image,
        tuple(attention(p, VIT_ATTENTION, heads) for p, heads in SEGFORMER_BLOCKS),
        tuple(ffn(f"{p}mlp.", "fc1", "fc2", depthwise=part(f"{p}mlp.dwconv.dwconv")) for p, _ in SEGFORMER_BLOCKS),
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
}
