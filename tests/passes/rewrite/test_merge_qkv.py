"""merge_qkv: fires, refuses, is idempotent, preserves numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

import passes
from passes.ops.linear_form import linear_form
from passes.rewrite.merge_qkv import MergeQKV
from tests.passes.golden_text import printed


class Attention(nn.Module):
    def __init__(self, biases: tuple[bool, bool, bool] = (True, True, True), tied: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v = (nn.Linear(8, 8, bias=b) for b in biases)
        if tied:
            self.k.weight = self.q.weight
        self.o = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (f(x).unflatten(-1, (2, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.o(y.transpose(1, 2).flatten(2))


def graph_of(module: nn.Module) -> torch.fx.GraphModule:
    return passes.trace(module, torch.randn(2, 5, 8))


def linears(graph_module: torch.fx.GraphModule) -> list[str]:
    return [form.weight_name for node in graph_module.graph.nodes if (form := linear_form(node)) is not None]


def test_fires(golden: Callable[[str, str], None]) -> None:
    result = MergeQKV().run(graph_of(Attention()))
    assert result.modified
    assert linears(result.graph_module) == ["q.weight_merged", "o.weight"]
    slices = [n.args[1:] for n in result.graph_module.graph.nodes if n.target is torch.ops.aten.slice.Tensor]
    assert slices == [(-1, 0, 8), (-1, 8, 16), (-1, 16, 24)]
    assert result.facts["merged"] == (("q.weight", "k.weight", "v.weight"),)
    assert "weight_merged" in result.graph_module.code
    golden("merge_qkv", printed(result.graph_module))


def test_merges_only_what_has_the_same_form() -> None:
    result = MergeQKV().run(graph_of(Attention(biases=(True, False, True))))
    assert linears(result.graph_module) == ["q.weight_merged", "k.weight", "o.weight"]


def test_refuses_a_weight_with_another_reader() -> None:
    result = MergeQKV().run(graph_of(Attention(tied=True)))
    assert not result.modified
    assert linears(result.graph_module) == ["k.weight", "k.weight", "v.weight", "o.weight"]


def test_idempotent() -> None:
    once = MergeQKV().run(graph_of(Attention())).graph_module
    assert not MergeQKV().run(once).modified


def test_preserves_numbers_also_of_ragged_heads() -> None:
    module = Attention().double()
    graph = passes.trace(module, torch.randn(2, 5, 8, dtype=torch.float64))
    masks = {name: torch.rand(8, 8) < 0.4 for name in ("q.weight", "k.weight", "v.weight")}
    small = passes.shrink(graph, masks).graph_module
    merged = MergeQKV().run(small).graph_module
    x = torch.randn(3, 7, 8, dtype=torch.float64)
    torch.testing.assert_close(merged(x), small(x), rtol=0, atol=1e-14)
