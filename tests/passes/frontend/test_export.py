"""Export: features stay static, keywords of every kind, and errors whose advice fits the cause."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import passes
from passes.ir.info import TraceError, trace_info
from passes.ir.sizes import is_static, is_symbolic, shape_of

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


class Held:
    """Keys and values (batch, heads, length, dim), as caches hold them."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self.keys, self.values = keys, values


class Remembers(nn.Module):
    """One attention over a past and what is new."""

    def __init__(self) -> None:
        super().__init__()
        self.key, self.value = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: torch.Tensor, past: Any) -> tuple[torch.Tensor, ...]:
        keys, values = (past.keys, past.values) if isinstance(past, Held) else past
        new = [layer(x).unflatten(2, (2, 3)).transpose(1, 2) for layer in (self.key, self.value)]
        keys, values = torch.cat([keys, new[0]], 2), torch.cat([values, new[1]], 2)
        query = x.unflatten(2, (2, 3)).transpose(1, 2)
        seen = nn.functional.scaled_dot_product_attention(query, keys, values)
        return seen.transpose(1, 2).reshape(*x.shape[:2], 6), keys, values


def _past(batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(length)
    made = [torch.randn(batch, 2, length, 3, generator=generator) for _ in range(2)]
    return made[0], made[1]


@pytest.mark.parametrize("container", [lambda keys, values: [keys, values], Held], ids=["list", "registered"])
def test_a_cache_has_a_dynamic_length_and_the_models_heads(container: Callable[..., Any]) -> None:
    if container is Held and Held not in pytree.SUPPORTED_NODES:
        pytree.register_pytree_node(
            Held,
            lambda held: ([held.keys, held.values], None),
            lambda tensors, _: Held(*tensors),
            flatten_with_keys_fn=lambda h: ([(pytree.SequenceKey(0), h.keys), (pytree.SequenceKey(1), h.values)], None),
        )
    model = Remembers()
    graph = passes.trace(model, {"x": torch.randn(2, 4, 6), "past": container(*_past(2, 5))})
    placeholders = [node.meta["val"].shape for node in graph.graph.nodes if node.op == "placeholder"]
    assert [[is_symbolic(size) for size in shape] for shape in placeholders[1:]] == 2 * [[True, False, True, False]]
    with torch.no_grad():
        for batch, past, length in ((1, 0, 1), (3, 9, 2), (2, 1, 1)):
            x = torch.randn(batch, length, 6)
            found = graph(x=x, past=container(*_past(batch, past)))
            for one, other in zip(found, model(x, _past(batch, past)), strict=True):
                torch.testing.assert_close(one, other)


def test_a_cache_in_a_class_that_torch_does_not_know_is_refused_with_what_to_do() -> None:
    class Unknown(Held):
        pass

    with pytest.raises(TraceError, match=r"Unknown.*(.|\n)*register_cache_pytrees_for_model\(model\) first"):
        passes.trace(Remembers(), {"x": torch.randn(2, 4, 6), "past": Unknown(*_past(2, 5))})
