"""Modules written by hand for the suite: torch's own transformer layers, timm-style fused attention, an MLP-Mixer."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


def encoder(form: str) -> nn.Module:
    layer = nn.TransformerEncoderLayer(32, 4, 48, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def decoder(form: str) -> nn.Module:
    return nn.TransformerDecoder(nn.TransformerDecoderLayer(32, 4, 48, batch_first=True, norm_first=True), 1)


class CrossAttention(nn.Module):
    """nn.MultiheadAttention whose packed weight is split at each use; with weights it writes its attention out."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.attention, self.form = nn.MultiheadAttention(32, 4, batch_first=True), form

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        mixed, _ = self.attention(x, y, y, need_weights=self.form == "eager")
        return x + mixed


class FusedBlock(nn.Module):
    """timm's ViT block: qkv in one linear, reshaped to (3, B, H, N, D)."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.norm1, self.norm2, self.form = nn.LayerNorm(32), nn.LayerNorm(32), form
        self.qkv, self.proj = nn.Linear(32, 96), nn.Linear(32, 32)
        self.fc1, self.fc2 = nn.Linear(32, 48), nn.Linear(48, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, 4, c // 4).permute(2, 0, 3, 1, 4).unbind(0)  # (B, H, N, D)
        if self.form == "eager":
            mixed = ((q * 8**-0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(mixed.transpose(1, 2).reshape(b, n, c))
        return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))


class FusedViT(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(FusedBlock(form) for _ in range(2)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x)


class MixerBlock(nn.Module):
    """Mixes along 5 tokens (a channel dim here: the weight fixes it), then along channels."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(32), nn.LayerNorm(32)
        self.tokens = nn.Sequential(nn.Linear(5, 24), nn.GELU(), nn.Linear(24, 5))
        self.channels = nn.Sequential(nn.Linear(32, 48), nn.GELU(), nn.Linear(48, 32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)  # (B, C, N) inside
        return x + self.channels(self.norm2(x))


def mixer(form: str) -> nn.Module:
    return nn.Sequential(MixerBlock(), MixerBlock())


class Experts(nn.Module):
    """A mixture of experts: every expert its own linears, all of them weighted by a router."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.norm, self.router = nn.LayerNorm(32), nn.Linear(32, 3)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(32, 48), nn.GELU(), nn.Linear(48, 32)) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(x)
        shares = self.router(hidden).softmax(-1)  # (B, N, experts)
        return x + torch.stack([expert(hidden) for expert in self.experts], -1).mul(shares.unsqueeze(-2)).sum(-1)
