"""A family of small transformers, written by hand so that every choice hypothesis draws is one flag."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Shape:
    """What hypothesis draws. ``kv_heads`` divides ``heads``; ``attention`` is one of `ATTENTIONS`."""

    layers: int = 1
    heads: int = 2
    kv_heads: int = 2
    head_dim: int = 4
    width: int = 8
    ffn: int = 12
    fused: bool = False
    gated: bool = False
    bias: bool = True
    rms: bool = False
    pre_norm: bool = False
    attention: str = "sdpa"
    activation: str = "gelu"


ATTENTIONS = ("sdpa", "matmul", "bmm")
ACTIVATIONS = {"gelu": functional.gelu, "relu": torch.relu, "silu": functional.silu, "sigmoid": torch.sigmoid}


class Attention(nn.Module):
    """Self-attention with a key-padding mask; grouped keys and values are repeated, or left to the fused operator."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        if shape.fused:
            self.qkv = nn.Linear(shape.width, q + 2 * kv, bias=shape.bias)
        else:
            self.q = nn.Linear(shape.width, q, bias=shape.bias)
            self.k = nn.Linear(shape.width, kv, bias=shape.bias)
            self.v = nn.Linear(shape.width, kv, bias=shape.bias)
        self.out = nn.Linear(q, shape.width, bias=shape.bias)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:  # (B, T, C), (B, T)
        s, (batch, length) = self.shape, x.shape[:2]
        if s.fused:
            kv = s.kv_heads * s.head_dim
            q, k, v = self.qkv(x).split([s.heads * s.head_dim, kv, kv], dim=-1)
        else:
            q, k, v = self.q(x), self.k(x), self.v(x)
        q = q.view(batch, length, s.heads, s.head_dim).transpose(1, 2)  # (B, H, T, D)
        k = k.view(batch, length, s.kv_heads, s.head_dim).transpose(1, 2)  # (B, K, T, D)
        v = v.view(batch, length, s.kv_heads, s.head_dim).transpose(1, 2)
        mask = visible[:, None, None, :]  # (B, 1, 1, T)
        if s.attention == "sdpa":
            grouped = s.heads != s.kv_heads
            mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped)
        else:
            k, v = (self._repeat(t) for t in (k, v))
            mixed = self._written_out(q, k, v, mask)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, s.heads * s.head_dim))

    def _repeat(self, t: Tensor) -> Tensor:  # (B, K, T, D) -> (B, H, T, D)
        s, group = self.shape, self.shape.heads // self.shape.kv_heads
        if group == 1:
            return t
        t = t[:, :, None].expand(t.shape[0], s.kv_heads, group, t.shape[2], s.head_dim)
        return t.reshape(t.shape[0], s.heads, t.shape[3], s.head_dim)

    def _written_out(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        s, (batch, _, length, _) = self.shape, q.shape
        if s.attention == "matmul":
            scores = q @ k.transpose(-1, -2) * s.head_dim**-0.5
            return scores.masked_fill(~mask, torch.finfo(q.dtype).min).softmax(-1) @ v
        q, k, v = (t.reshape(batch * s.heads, length, s.head_dim) for t in (q, k, v))  # (B·H, T, D)
        scores = torch.bmm(q, k.transpose(1, 2)) / s.head_dim**0.5
        scores = scores.view(batch, s.heads, length, length)
        scores = torch.where(mask, scores, torch.finfo(q.dtype).min)
        probs = scores.view(batch * s.heads, length, length).softmax(-1)
        return torch.bmm(probs, v).view(batch, s.heads, length, s.head_dim)


class FeedForward(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.fused_gate = shape.gated and shape.fused
        self.up = nn.Linear(shape.width, shape.ffn * (2 if self.fused_gate else 1), bias=shape.bias)
        if shape.gated and not shape.fused:
            self.gate = nn.Linear(shape.width, shape.ffn, bias=shape.bias)
        self.down = nn.Linear(shape.ffn, shape.width, bias=shape.bias)

    def forward(self, x: Tensor) -> Tensor:
        act = ACTIVATIONS[self.shape.activation]
        if self.fused_gate:
            gate, up = self.up(x).chunk(2, dim=-1)
            return self.down(act(gate) * up)
        if self.shape.gated:
            return self.down(act(self.gate(x)) * self.up(x))
        return self.down(act(self.up(x)))


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        norm = nn.RMSNorm if shape.rms else nn.LayerNorm
        self.pre_norm = shape.pre_norm
        self.attention, self.ffn = Attention(shape), FeedForward(shape)
        self.norm1, self.norm2 = norm(shape.width), norm(shape.width)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        if self.pre_norm:
            x = x + self.attention(self.norm1(x), visible)
            return x + self.ffn(self.norm2(x))
        x = self.norm1(x + self.attention(x, visible))
        return self.norm2(x + self.ffn(x))


class Transformer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.head = nn.Linear(shape.width, 3)

    def forward(self, ids: Tensor, visible: Tensor) -> Tensor:
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x, visible)
        return self.head(x)


def build(shape: Shape, seed: int = 0) -> Transformer:
    """A float64 model whose every part moves the output: weights and biases are far from tiny."""
    generator = torch.Generator().manual_seed(seed)
    model = Transformer(shape).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(centre + 0.7 * noise)
    return model


def inputs(seed: int = 0, batch: int = 3, length: int = 5) -> dict[str, Tensor]:
    """Every row sees at least its first key."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, length + 1, (batch, 1), generator=generator)
    return {
        "ids": torch.randint(0, 11, (batch, length), generator=generator),
        "visible": torch.arange(length) < lengths,
    }


MASK_KINDS = ("blocks", "rows", "columns", "heads", "elements", "all", "none")


def random_mask(
    parameter: Tensor, kind: str, head_dim: int, generator: torch.Generator, keep: float, block: int = 2
) -> Tensor:
    """A bool mask of the parameter's shape; heads are stretches of ``head_dim`` along the larger unpruned dim."""
    rows, columns = parameter.shape
    steps = {
        "blocks": (block, block),
        "rows": (1, columns),
        "columns": (rows, 1),
        "heads": (head_dim, columns),
        "elements": (1, 1),
        "all": (rows, columns),
    }
    if kind == "none":
        return torch.ones(rows, columns, dtype=torch.bool)
    if kind == "heads" and rows % head_dim:
        kind = "rows"
    high, wide = steps[kind]
    grid = torch.rand(-(-rows // high), -(-columns // wide), generator=generator) < (0.0 if kind == "all" else keep)
    return grid.repeat_interleave(high, 0)[:rows].repeat_interleave(wide, 1)[:, :columns]


def random_masks(
    model: Transformer, kinds: Mapping[str, str], seed: int, keep: float, biases: bool
) -> dict[str, Tensor]:
    """Masks for the 2-D weights of the layers. ``kinds``: {weight's own name: kind}. With ``biases``, a bias goes with
    its row."""
    generator = torch.Generator().manual_seed(seed)
    parameters = dict(model.named_parameters())
    masks: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        role = name.split(".")[-2]
        if not name.startswith("layers") or parameter.dim() != 2:
            continue
        kind = kinds.get(role, "none")
        head_dim = model.layers[0].attention.shape.head_dim
        if role == "out" and kind == "heads":
            masks[name] = random_mask(parameter.t(), kind, head_dim, generator, keep).t().contiguous()
        else:
            masks[name] = random_mask(parameter, kind, head_dim, generator, keep)
        bias = name.removesuffix("weight") + "bias"
        if biases and bias in parameters:
            masks[bias] = masks[name].any(1)
    return masks
