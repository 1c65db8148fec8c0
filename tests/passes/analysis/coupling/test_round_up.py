"""Counts of dims become multiples; numbers stay; what cannot be rounded is left alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import passes
from tests.passes.properties.tiny import Shape, build, inputs

SHAPE = Shape(layers=2, heads=3, kv_heads=3, head_dim=8, width=16, ffn=30)


def masks(ffn: int, dims: int) -> dict[str, Tensor]:
    """Layer 0 keeps the last ``ffn`` FFN dims and, in heads 0 and 2, the last ``dims`` v dims."""
    up = torch.arange(30) >= 30 - ffn
    head = torch.arange(8) >= 8 - dims
    value = torch.cat([head, torch.zeros(8, dtype=torch.bool), head])
    prefix = "layers.0"
    return {
        f"{prefix}.attention.v.weight": value[:, None].expand(24, 16),
        f"{prefix}.attention.v.bias": value,
        f"{prefix}.ffn.down.weight": up.expand(16, 30),
    }


def sizes(result: passes.ShrinkResult) -> tuple[int, int, int]:
    """(FFN dims, v dims of all heads, q dims of all heads) of layer 0."""
    shapes = {n: p.shape for n, p in result.graph_module.named_parameters()}
    weights = ("ffn.down.weight", "attention.out.weight", "attention.q.weight")
    down, out, query = (shapes[f"layers.0.{name}"] for name in weights)
    return down[1], out[1], query[0]


@pytest.mark.parametrize(
    ("multiple", "expected"),
    [(1, (11, 2 * 3, 2 * 8)), (4, (12, 2 * 4, 2 * 8)), (8, (16, 2 * 8, 2 * 8)), (64, (30, 16, 16))],
)
def test_counts_are_rounded_up_and_heads_still_go(multiple: int, expected: tuple[int, int, int]) -> None:
    graph = passes.trace(build(SHAPE), inputs())
    result = passes.shrink(graph, masks(11, 3), multiple=multiple)  # raises where numbers change
    assert sizes(result) == expected
    kept = [reason for reason in result.report.pinned.values() if "rounded up" in reason]
    assert bool(kept) == (multiple > 1)
    again = passes.shrink(graph, masks(11, 3), multiple=multiple).plan
    assert passes.plan_shrink(graph, masks(11, 3), multiple=multiple).cuts == again.cuts


def test_heads_with_dims_of_their_own_are_rounded_alike() -> None:
    own = masks(11, 3)
    value = torch.ones(3, 8, dtype=torch.bool)
    value[0, 3:], value[1, :6], value[2, ::2] = False, False, False  # 3, 2 and 4 dims, none shared by all
    own["layers.0.attention.v.weight"] = value.flatten()[:, None].expand(24, 16)
    own["layers.0.attention.v.bias"] = value.flatten()
    graph = passes.trace(build(SHAPE), inputs())
    counts = [sizes(passes.shrink(graph, own, multiple=multiple))[1] for multiple in (1, 3, 8)]
    assert counts == [3 * 4, 3 * 6, 3 * 8]


@pytest.mark.parametrize("seed", range(6))
def test_any_masks_round_exactly(seed: int) -> None:
    shape = Shape(layers=2, heads=4, kv_heads=2, head_dim=4, ffn=12, gated=seed % 2 == 0, fused=seed % 3 == 0)
    graph = passes.trace(build(shape), inputs())
    generator = torch.Generator().manual_seed(seed)
    found = {
        name: (torch.rand(p.shape[0], *[1] * (p.dim() - 1), generator=generator) > 0.6).expand(p.shape)
        for name, p in graph.named_parameters()
        if "norm" not in name
    }
    before = passes.shrink(graph, found).report.parameters_after
    assert passes.shrink(graph, found, multiple=4).report.parameters_after >= before
