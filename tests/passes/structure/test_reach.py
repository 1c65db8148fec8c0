"""Which linears a value comes from: one module whose outputs are a value of each kind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from passes.frontend.trace import trace
from passes.structure.reach import Reach, reach
from passes.structure.weight_uses import weight_uses


class Values(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Linear(4, 4), nn.Linear(4, 4), nn.LayerNorm(4)
        self.shift = nn.Parameter(torch.randn(4))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        a, b = self.a(x), self.b(x)
        return {
            "view": a.reshape(2, 2, 2).transpose(1, 2),
            "cat": torch.cat([a, b.tanh()]),
            "activated": a.relu(),
            "gated": a.sigmoid() * b,
            "shifted": a + self.shift,
            "both branches": a + a.tanh(),
            "sum of two": a + b,
            "residual": a + x,
            "normed": self.norm(a),
            "softmax": a.softmax(-1),
            "parameters": self.shift.exp(),
        }


def reached(through_norms: bool = False) -> dict[str, Reach]:
    graph_module = trace(Values(), torch.randn(2, 4), dynamic=False)
    uses = weight_uses(graph_module)
    found = reach(graph_module.graph, uses, through_norms=through_norms)
    names = ("view", "cat", "activated", "gated", "shifted", "both branches", "sum of two", "residual", "normed")
    outputs = graph_module.graph.output_node().args[0]
    return dict(zip((*names, "softmax", "parameters"), (found[node] for node in outputs), strict=True))


def linears(found: Reach) -> dict[str, bool]:
    """{its only parameter input's module: activated}."""
    return {str(node.all_input_nodes[1].target).split(".")[0]: activated for node, activated in found.linears.items()}


@pytest.fixture(scope="module")
def values() -> dict[str, Reach]:
    return reached()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("view", {"a": False}),
        ("cat", {"a": False, "b": True}),
        ("activated", {"a": True}),
        ("gated", {"a": True, "b": False}),
        ("shifted", {"a": False}),
        ("both branches", {"a": True}),
        ("sum of two", {}),
        ("residual", {}),
        ("normed", {}),
        ("softmax", {}),
    ],
)
def test_values_come_from_linears_through_views_and_arithmetic(
    values: dict[str, Reach], value: str, expected: dict[str, bool]
) -> None:
    assert linears(values[value]) == expected
    assert values[value].opaque == (not expected)


def test_what_depends_on_parameters_alone_is_constant_and_not_opaque(values: dict[str, Reach]) -> None:
    assert values["parameters"].constant
    assert not values["parameters"].opaque
    assert not any(found.constant for name, found in values.items() if name != "parameters")


def test_norms_are_looked_through_where_asked() -> None:
    assert linears(reached(through_norms=True)["normed"]) == {"a": False}
