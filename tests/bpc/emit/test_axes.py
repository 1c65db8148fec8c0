"""Names of inputs, outputs and dynamic axes."""

from __future__ import annotations

import onnx_ir as ir
import pytest
import torch
from torch import fx, nn

import passes
from bpc.emit.axes import (
    AxesError,
    DynamicAxes,
    Layout,
    dynamic_axes,
    fix_axes,
    input_names,
    name_axes,
    output_names,
    resized_inputs,
    settled_axes,
)
from passes.frontend.trace import exported_program
from tests.bpc.emit.models import parse


def axes_of(graph: fx.GraphModule) -> DynamicAxes:
    return dynamic_axes(graph, exported_program(graph))


class Pooled(nn.Module):
    """Two inputs; ``tied``: the second must be as long as the first."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.tied, self.scale = tied, nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor, more: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        x, keys = x * self.scale, more["keys"] * self.scale
        y = x * keys if self.tied else x.mean(1) + keys.mean(1)
        return {"pooled": y, "double": 2 * y}


def traced(tied: bool) -> fx.GraphModule:
    return passes.trace(Pooled(tied), {"x": torch.randn(2, 5, 4), "more": {"keys": torch.randn(2, 5, 4)}})


@pytest.mark.parametrize("tied", [True, False])
def test_lengths_share_a_name_where_the_model_ties_them(tied: bool) -> None:
    graph = traced(tied)
    axes = axes_of(graph)
    assert axes.names[0] == {0: "batch", 1: "sequence"}
    assert axes.names[1][0] == "batch"
    assert (axes.names[1][1] == "sequence") == tied
    assert set(axes.example.values()) == {2, 5}
    assert input_names(graph) == ["x", "more_keys"]
    assert output_names(exported_program(graph)) == ["pooled", "double"]


def test_inputs_are_resized_along_named_axes_alone(tiny_graph: fx.GraphModule) -> None:
    axes = axes_of(tiny_graph)
    ids, mask = resized_inputs(tiny_graph, axes, {"batch": 3, "sequence": 9})
    assert ids.shape == mask.shape == (3, 9)
    assert torch.equal(ids[0, 7:], ids[0, :2])  # repeated
    assert resized_inputs(tiny_graph, axes, {"sequence": 1})[0].shape == (2, 1)
    with pytest.raises(ValueError, match="no dynamic axis width; this graph has batch, sequence"):
        resized_inputs(tiny_graph, axes, {"width": 3})


def test_names_take_the_place_of_symbols_and_sizes_the_place_of_names() -> None:
    model = parse("(float[s0, s1, 4] x) => (float[s0, s1, 4] y)", "h = Relu(x) y = Tanh(h)")
    name_axes(model, DynamicAxes({}, {}, {"s0": "batch", "s1": "sequence"}))
    assert [str(v.shape) for v in (*model.graph.inputs, model.graph[0].outputs[0])] == ["[batch,sequence,4]"] * 2
    model.graph.outputs[0].shape = ir.Shape(["batch", "2*sequence", 4])
    proto = ir.to_proto(model)
    fix_axes(proto, {"sequence": 7})
    dims = [
        [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*proto.graph.input, *proto.graph.output)
    ]
    assert dims == [["batch", 7, 4], ["batch", 0, 4]]  # what is computed from it is left open


def test_a_layout_names_the_sizes_of_the_trace_and_no_others() -> None:
    graph = traced(tied=True)
    program = exported_program(graph)

    def settled(**axes: dict[int, str]) -> DynamicAxes:
        return settled_axes(graph, program, Layout(("x", "keys"), (), axes, {}, ()))

    named = {0: "rows", 1: "steps"}
    axes = settled(x=named, keys=named)
    assert axes.names == {0: named, 1: named}
    assert axes.example == {"rows": 2, "steps": 5}
    assert set(axes.symbols.values()) == {"rows", "steps"}
    with pytest.raises(AxesError, match=r"keys: dim 2 \(width\) is fixed at 4 by the trace"):
        settled(x=named, keys={**named, 2: "width"})
    with pytest.raises(AxesError, match=r"x: dim 1 \(s\d+\) is no size of the model"):
        settled(x={0: "rows"}, keys=named)
