"""Export: features stay static, keywords of every kind, and errors whose advice fits the cause."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import passes
from passes.ir.info import TraceError, trace_info
from passes.ir.sizes import is_static, shape_of

X = torch.randn(3, 5, 6)


class Interleave(nn.Module):
    """Reshapes by the input's own width before a linear says what it is."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, c = x.shape
        return self.linear(x.reshape(b, n, 2, c // 2).transpose(2, 3).reshape(b, n, c))


def test_a_width_that_the_model_pins_in_a_roundabout_way_is_static() -> None:
    graph = passes.trace(Interleave(), X)
    (x,) = (n for n in graph.graph.nodes if n.op == "placeholder")
    assert [is_static(size) for size in shape_of(x)] == [False, False, True]


class Options(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor, mode: str | None = None, **options: Any) -> tuple[torch.Tensor, ...]:
        y = self.linear(x)
        if mode == "double":
            y = 2 * y
        for shift in options.get("shifts", {}).get("by", ()):
            y = y + shift
        return (y, x) if options.get("both") else (y,)


@pytest.mark.parametrize(
    "given",
    [
        {"both": True},
        {"mode": "double", "both": False},
        {"shifts": {"by": [torch.ones(3, 5, 1), 2.5], "label": "a"}, "both": True, "unused": 3},
    ],
)
def test_whatever_the_forward_takes_can_stand_in_the_example(given: dict[str, Any]) -> None:
    model, inputs = Options().eval(), {"x": X, **given}
    graph = passes.trace(model, inputs)
    for out, expected in zip(graph(**inputs), model(**inputs), strict=True):
        torch.testing.assert_close(out, expected, rtol=0, atol=0)
    assert not is_static(shape_of(next(n for n in graph.graph.nodes if n.name == "x"))[0])
    assert set(trace_info(graph).kwargs) == set(inputs)


def test_a_wrong_width_is_not_called_control_flow() -> None:
    with pytest.raises(TraceError, match=r"does not run on the example inputs(.|\n)*\(3, 5, 4\) float32") as error:
        passes.trace(Options(), {"x": X[..., :4]})
    assert "control flow" not in str(error.value)


class Graph(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.graph = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.graph(x)


def test_names_that_graphs_have_themselves_are_refused_where_they_clash_only() -> None:
    with pytest.raises(TraceError, match="attribute 'graph' of its own"):
        passes.trace(Graph(), X)
    inside = nn.Sequential(Graph())
    torch.testing.assert_close(passes.trace(inside, X)(X), inside(X))
