"""What is counted of masks and plans."""

from __future__ import annotations

import torch
from torch import Tensor, fx

import passes
from bpc.report.layers import Summary
from bpc.report.summary import summarize
from tests.bpc.report.conftest import FFN


def test_units_and_weights_are_counted(summary: Summary) -> None:
    assert [(b.units_left, b.units) for b in summary.blocks] == [(2, 4), (5, 24), (4, 4), (24, 24)]
    attention, ffn, *untouched = summary.blocks
    assert attention.parameters == 4 * 32 * 32
    assert attention.parameters_kept == 2 * 32 * 16 + 16 * 16 + 32 * 32  # the output projection has no mask
    assert attention.parameters_present == 4 * 32 * 16
    assert (ffn.parameters_kept, ffn.parameters_present) == (2 * 32 * 5, 2 * 32 * 5)
    assert all(b.parameters_kept == b.parameters_present == b.parameters for b in untouched)


def test_present_is_what_the_small_model_has(
    graph: fx.GraphModule, masks: dict[str, Tensor], result: passes.ShrinkResult
) -> None:
    small = sum(
        p.numel() for n, p in result.graph_module.named_parameters() if p.dim() == 2 and n.startswith("encoder.")
    )
    assert sum(b.parameters_present for b in summarize(graph, masks, result.plan).blocks) == small


def test_without_masks_the_zeros_of_the_weights_count(graph: fx.GraphModule) -> None:
    assert [b.units_left for b in summarize(graph, None).blocks] == [4, 24, 4, 24]


def test_padding_is_what_makes_heads_equally_wide(graph: fx.GraphModule) -> None:
    """Head 0 keeps half of its value dims, which its rows and the output's columns pay for in full."""
    rows = torch.arange(32) >= 4
    value, output = "encoder.layer.0.attention.self.value", "encoder.layer.0.attention.output.dense"
    halved = {f"{value}.weight": rows[:, None].expand(32, 32), f"{value}.bias": rows}
    halved[f"{output}.weight"] = rows.expand(32, 32)
    found = summarize(graph, halved, passes.shrink(graph, halved).plan)
    assert [b.padding for b in found.blocks] == [2 * 4 * 32, 0, 0, 0]
    assert found.padding == 2 * 4 * 32 / (2 * 4 * 32 * 32 + 2 * 2 * 32 * FFN)


def test_a_block_that_died_has_nothing_left(graph: fx.GraphModule) -> None:
    dead = {"encoder.layer.1.output.dense.weight": torch.zeros(32, FFN, dtype=torch.bool)}
    plan = passes.shrink(graph, dead).plan
    assert [b.units_left for b in summarize(graph, dead, plan).blocks] == [4, 24, 4, 0]
