from __future__ import annotations

import pytest
import torch
from torch import fx, nn

import passes
from bpc.emit.half import convert_graph
from tests.bpc.emit.conftest import example

aten = torch.ops.aten


def dtypes(graph: fx.GraphModule, target: object) -> set[torch.dtype]:
    return {n.meta["val"].dtype for n in graph.graph.nodes if n.target is target}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_products_run_in_half_precision_and_outputs_stay_float32(
    tiny_graph: fx.GraphModule, dtype: torch.dtype
) -> None:
    half = convert_graph(tiny_graph, dtype)
    inputs = example(3, 9)
    with torch.no_grad():
        expected, actual = (g(**inputs)["start_logits"] for g in (tiny_graph, half))
    error = float((expected - actual).abs().max() / expected.abs().max())
    assert 1e-6 < error < 0.05
    assert actual.dtype == torch.float32
    for target in (aten.linear.default, aten.scaled_dot_product_attention.default, aten.layer_norm.default):
        assert dtypes(half, target) == {dtype}
    assert {p.dtype for p in half.parameters()} == {dtype}
    assert {p.dtype for p in tiny_graph.parameters()} == {torch.float32}  # the original is whole


class RootMeanSquare(nn.Module):
    """A norm written out, as in Llama, before a product."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.linear = nn.Parameter(torch.randn(16)), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def test_a_written_out_norm_stays_float32() -> None:
    torch.manual_seed(0)
    graph = passes.trace(RootMeanSquare().eval(), torch.randn(3, 5, 16))
    half = convert_graph(graph, torch.bfloat16)
    assert dtypes(half, aten.rsqrt.default) == dtypes(half, aten.mean.dim) == {torch.float32}
    assert dtypes(half, aten.linear.default) == {torch.bfloat16}
    kinds = {name: p.dtype for name, p in half.named_parameters()}
    assert kinds == {"weight": torch.float32, "linear.weight": torch.bfloat16, "linear.bias": torch.bfloat16}
    x = 100 * torch.randn(4, 6, 16)
    with torch.no_grad():
        torch.testing.assert_close(half(x), graph(x), atol=0.05, rtol=0.05)


def test_other_dtypes_are_refused(tiny_graph: fx.GraphModule) -> None:
    with pytest.raises(ValueError, match="no half precision"):
        convert_graph(tiny_graph, torch.float64)
