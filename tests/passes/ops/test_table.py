"""The table: an operator of one's own that is entered there reaches the analyses, the report and the roles."""

from __future__ import annotations

import operator

import pytest
import torch
from torch import fx, nn
from torch.nn import functional

import passes
from passes.ir.sizes import shape_of
from passes.ops import linear, pieces, pointwise, table
from passes.ops.arguments import first_argument
from passes.ops.rule import Facts, Kind, Live, Rule
from passes.ops.structural import tie_other_dims
from passes.ops.table import RULES, find_tables, kind_of, rule_for, unknown_operators
from passes.ops.ties import Ties
from passes.ops.unknown import UNKNOWN, unknown_constant
from passes.structure.roles import find_roles
from tests.passes.sketch import Sketch, matrix


@torch.library.custom_op("bpc_test::swiglu", mutates_args=())
def swiglu(x: torch.Tensor) -> torch.Tensor:
    gate, up = x.chunk(2, -1)
    return functional.silu(gate) * up


@swiglu.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return x.new_empty(*x.shape[:-1], x.shape[-1] // 2)


def live(node: fx.Node, live_out: torch.Tensor, facts: Facts) -> Live:
    return {first_argument(node): torch.cat([live_out, live_out], -1)}


def ties(node: fx.Node, ties: Ties, facts: Facts) -> None:
    source, last = first_argument(node), len(shape_of(node)) - 1
    tie_other_dims(node, source, [last], ties)
    whole, half = ties.axis(source, last), ties.axis(node, last)
    if whole is not None and half is not None:
        halves = ties.virtual(2)
        ties.pins[halves] = "the two halves of a gated linear unit"
        ties.grid(whole, [halves, half])


SWIGLU = Rule("swiglu", unknown_constant, live, ties, kind=Kind.GATE)


@pytest.fixture
def with_swiglu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table as it is where somebody has entered the operator."""
    monkeypatch.setattr(table, "RULES", {**table.RULES, torch.ops.bpc_test.swiglu.default: SWIGLU})


class FeedForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 12), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.ops.bpc_test.swiglu(self.up(x)))


def graph_of_one_that_ignores_two() -> tuple[FeedForward, fx.GraphModule]:
    torch.manual_seed(0)
    module = FeedForward().double()
    with torch.no_grad():
        module.down.weight[:, [1, 4]] = 0
    return module, passes.trace(module, torch.randn(2, 5, 4).double())


def test_without_a_rule_it_is_named_and_cuts_nothing() -> None:
    _, graph = graph_of_one_that_ignores_two()
    result = passes.shrink(graph)
    assert result.report.unknown_operators == ("bpc_test.swiglu.default",)
    assert result.report.parameters_after == result.report.parameters_before
    assert {r.role for r in find_roles(graph)} == {"other"}


@pytest.mark.usefixtures("with_swiglu")
def test_with_a_rule_both_halves_shrink_and_roles_see_a_gate() -> None:
    module, graph = graph_of_one_that_ignores_two()
    result = passes.shrink(graph)
    assert result.report.unknown_operators == ()
    assert result.plan.small_shape("up.weight", (12, 4)) == (8, 4)
    x = torch.randn(3, 7, 4, dtype=torch.float64)
    torch.testing.assert_close(result.graph_module(x), module(x), rtol=0, atol=1e-12)
    assert {r.weight: r.role for r in find_roles(graph)} == {"up.weight": "ffn.gate_up", "down.weight": "ffn.down"}


aten = torch.ops.aten


def test_calls_their_rule_was_not_written_for_get_the_default_and_are_named() -> None:
    sketch = Sketch()
    x = sketch.input("b", 3)
    known, flat = sketch.call(aten.roll.default, x, [1], [1]), sketch.call(aten.roll.default, x, [1])
    strange, new = sketch.call(aten.sort.default, x), sketch.call(aten.tril.default, x)
    assert rule_for(known) is pieces.ROLL
    assert rule_for(flat) is rule_for(new) is UNKNOWN
    assert unknown_operators(sketch.graph) == ["aten.roll.default", "aten.tril.default"]  # not lists of results
    assert kind_of(flat) is Kind.VIEW  # structure looks through it all the same
    assert kind_of(strange) is kind_of(new) is Kind.OTHER


def test_a_product_with_a_parameter_comes_first_and_tags_come_last() -> None:
    sketch = Sketch()
    x = sketch.input("b", 3)
    product, computed = (
        sketch.call(aten.mm.default, x, sketch.weight("w", matrix(3, 3))),
        sketch.call(aten.erf.default, x),
    )
    assert rule_for(product) is linear.RULE
    assert kind_of(product) is Kind.LINEAR
    assert computed.target not in RULES
    assert rule_for(computed) is pointwise.POINTWISE
    split = sketch.call(aten.split.Tensor, x, 1, 1)
    piece = sketch.call(operator.getitem, split, 0)
    assert kind_of(split) is kind_of(piece) is Kind.VIEW
    assert kind_of(x) is Kind.OTHER


def test_tables_are_what_no_linear_convolution_or_attention_computes() -> None:
    sketch = Sketch()
    ids, table = sketch.input("b", dtype=torch.int64), sketch.weight("table", matrix(4, 3))
    looked_up = sketch.call(aten.embedding.default, table, ids)
    scaled, rates = sketch.call(aten.cos.default, looked_up), sketch.weight("rates", matrix(3, 3))
    angles = sketch.call(aten.matmul.default, scaled, sketch.call(aten.neg.default, rates))
    projected = sketch.call(aten.mm.default, scaled, rates)
    behind = sketch.call(aten.relu.default, projected)
    mixed = sketch.call(aten.add.Tensor, scaled, behind)
    tables = find_tables(sketch.graph)
    assert {ids, table, looked_up, scaled, angles} <= tables
    assert tables.isdisjoint({projected, behind, mixed})
