"""torch's own layers and modules written by hand."""

from __future__ import annotations

from collections.abc import Mapping

import tests.passes.family_modules as modules
from tests.passes.families.base import Family, dense, each, ffn, fused

PACKED = "self_attn.in_proj"


PLAIN: Mapping[str, Family] = {
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
    "experts": Family(
        modules.Experts,
        lambda: {"x": dense()},
        (),
        each("experts.{}.", 3, lambda p: ffn(p, "0", "2")),
        ("none",),
    ),
}
