"""Tracing: what the graph shares with the model, sizes that stay dynamic, what is functional, and errors that help."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from passes.frontend.trace import exported_program, retrace, trace
from passes.ir.graph import get_attribute
from passes.ir.info import TraceError, trace_info

aten = torch.ops.aten


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
        self.head.weight = self.embedding.weight
        self.dropout = nn.Dropout(0.5)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(self.embedding(ids)))


class InPlace(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        y += 1
        y[:, 0].zero_()
        return y.relu_()


class Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return x
        return -x


def targets(graph: torch.fx.GraphModule) -> set[object]:
    return {node.target for node in graph.graph.nodes if node.op == "call_function"}


def test_parameters_are_the_models_own_and_ties_are_known() -> None:
    model = Tied()
    graph = trace(model, torch.randint(0, 9, (2, 5)))
    (name,) = {trace_info(graph).aliases[alias] for alias in ("embedding.weight", "head.weight")}
    assert get_attribute(graph, name) is model.embedding.weight
    assert [n.target for n in graph.graph.nodes if n.op == "get_attr"] == [name]


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 7), (4, 2)])
def test_sizes_stay_dynamic_even_from_an_example_of_one_row(batch: int, length: int) -> None:
    model = Tied().eval()
    ids = torch.randint(0, 9, (batch, length))
    for example in (torch.zeros(1, 3, dtype=torch.long), torch.zeros(2, 1, dtype=torch.long)):
        torch.testing.assert_close(trace(model, example)(ids), model(ids), rtol=0, atol=0)


def test_static_traces_keep_the_examples_sizes() -> None:
    graph = trace(Tied(), torch.zeros(2, 3, dtype=torch.long), dynamic=False)
    placeholder = next(n for n in graph.graph.nodes if n.op == "placeholder")
    assert tuple(placeholder.meta["val"].shape) == (2, 3)
    assert all(isinstance(s, int) for s in placeholder.meta["val"].shape)


def test_dropout_is_gone_and_the_training_flag_is_back() -> None:
    model = Tied().train()
    graph = trace(model, torch.zeros(2, 3, dtype=torch.long))
    assert aten.dropout.default not in targets(graph)
    assert model.training
    assert model.dropout.training


def test_in_place_operators_become_functional() -> None:
    x = torch.randn(3, 4)
    graph = trace(InPlace(), torch.randn(2, 4))
    assert not [t for t in targets(graph) if isinstance(t, torch._ops.OpOverload) and t._schema.is_mutable]
    before = x.clone()
    torch.testing.assert_close(graph(x), InPlace()(x.clone()), rtol=0, atol=0)
    assert torch.equal(x, before)


def test_data_dependent_control_flow_is_explained_with_its_line() -> None:
    with pytest.raises(TraceError, match=r"Branch cannot be traced(.|\n)*if x.sum\(\) > 0(.|\n)*torch.where"):
        trace(Branch(), torch.randn(2, 3))


@pytest.mark.parametrize(("example", "reason"), [(None, "no `dummy_inputs`"), ("text", "example_inputs is a str")])
def test_missing_and_odd_examples_are_refused(example: object, reason: str) -> None:
    with pytest.raises(TraceError, match=reason):
        trace(nn.Linear(2, 2), example)


def test_traced_graphs_export_again() -> None:
    model, ids = Tied().eval(), torch.randint(0, 9, (3, 6))
    graph = trace(model, torch.zeros(2, 5, dtype=torch.long))
    torch.testing.assert_close(retrace(graph)(ids), model(ids), rtol=0, atol=0)
    torch.testing.assert_close(exported_program(graph).module()(ids), model(ids), rtol=0, atol=0)


def test_graphs_from_elsewhere_are_refused() -> None:
    with pytest.raises(ValueError, match=r"passes\.trace"):
        trace_info(torch.fx.symbolic_trace(nn.Linear(2, 2)))
