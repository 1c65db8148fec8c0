from __future__ import annotations

import torch
from torch import fx, nn

import passes
from bpc.emit.axes import dynamic_axes
from bpc.emit.flops import FlopModel, count_flops, flop_model
from passes.frontend.trace import exported_program


def test_linear_layers_and_both_attention_products_are_counted(tiny_graph: fx.GraphModule) -> None:
    axes = dynamic_axes(tiny_graph, exported_program(tiny_graph))
    batch, length, hidden, dim = 3, 6, 32, 8
    linear = sum(4 * hidden * dim * heads + 2 * hidden * ffn for heads, ffn in ((3, 20), (1, 12))) + hidden * 2
    attention = sum(2 * length * dim * heads for heads in (3, 1))
    expected = 2 * batch * length * (linear + attention)
    assert count_flops(tiny_graph, axes, {"batch": batch, "sequence": length}) == expected
    model = flop_model(tiny_graph, axes)
    assert model is not None
    assert model(batch, length) == expected
    assert FlopModel.from_json(model.to_json()) == model


def test_a_head_on_pooled_rows_counts_once_per_row() -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.row = nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.row(self.token(x)[:, 0])

    graph = passes.trace(Pooled().eval(), torch.randn(2, 6, 4))
    assert flop_model(graph, dynamic_axes(graph, exported_program(graph))) == FlopModel(row=30, token=40, pair=0)
