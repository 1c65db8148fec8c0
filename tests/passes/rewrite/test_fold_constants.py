"""fold-constants: it fires (golden text), refuses, is idempotent, and preserves numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import fx, nn
from torch.nn import functional

from passes.frontend.trace import trace
from passes.ir.sizes import shape_of
from passes.rewrite.fold_constants import FoldConstants
from tests.passes.golden_text import printed
from tests.passes.sketch import NAN, Sketch, matrix

aten = torch.ops.aten


class Ffn(nn.Module):
    """Row 0 of the first matrix is 0 and its bias 2; row 1 is 0 with its bias."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(2, 3), nn.Linear(3, 2, bias=bias)
        with torch.no_grad():
            self.up.weight.copy_(torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 2.0]]))
            self.up.bias.copy_(torch.tensor([2.0, 0.0, 3.0]))
            self.down.weight.copy_(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
            if bias:
                self.down.bias.copy_(torch.tensor([10.0, 20.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.relu(self.up(x)))


@pytest.mark.parametrize("bias", [True, False])
def test_constants_go_into_the_bias_and_make_one_where_there_is_none(
    bias: bool, golden: Callable[[str, str], None]
) -> None:
    result = FoldConstants().run(trace(Ffn(bias), torch.randn(4, 2)))
    assert result.modified
    (fold,) = result.facts["folds"]
    assert (fold.weight, fold.bias, fold.new_bias) == ("down.weight", "down.bias", not bias)
    assert (fold.columns, fold.constants) == ((0, 1), (2.0, 0.0))
    golden("fold_constants" if bias else "fold_constants_new_bias", printed(result.graph_module))


class TwoUses(nn.Module):
    """One weight reads two inputs that are constant with different numbers; one bias cannot serve both."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(2, 2)
        self.offset = nn.Parameter(torch.tensor([5.0, 0.0]))
        self.first = nn.Linear(2, 2)
        with torch.no_grad():
            self.first.weight[0] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.shared(x) + self.shared(x + self.offset)


class TiedEmbedding(nn.Module):
    """The output layer's weight is the embedding table; a cleared column would change the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 2)
        self.up = nn.Linear(2, 2)
        with torch.no_grad():
            self.up.weight[0] = 0

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return functional.linear(self.up(self.embedding(ids)), self.embedding.weight)


REFUSED = {
    "two constants": (TwoUses(), torch.randn(4, 2)),
    "tied embedding": (TiedEmbedding(), torch.randint(0, 5, (2, 3))),
    "nothing constant": (nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)), torch.randn(4, 2)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_refuses(name: str) -> None:
    model, example = REFUSED[name]
    result = FoldConstants().run(trace(model, example))
    assert not result.modified
    assert result.facts["folds"] == []


@pytest.mark.parametrize(("column", "made"), [([0.5, 0.5], True), ([0.0, 1.0], True), ([0.0, 0.0], False)])
def test_a_bias_is_made_where_one_number_is_not_zero(column: list[float], made: bool) -> None:
    """The shift is 2 × column: (1, 1), (0, 2), (0, 0)."""
    model, x = Ffn(bias=False), torch.randn(5, 2)
    with torch.no_grad():
        model.down.weight[:, 0] = torch.tensor(column)
    folded = FoldConstants().run(trace(model, x)).graph_module
    assert any(n.target == "down.bias" for n in folded.graph.nodes) is made
    torch.testing.assert_close(folded(x), model(x))


@pytest.mark.parametrize("target", [aten.mm.default, aten.matmul.default])
def test_a_product_that_takes_no_bias_gets_it_behind(target: torch._ops.OpOverload) -> None:
    sketch = Sketch()
    x = sketch.fixed(sketch.input("b", 2), [3.0, NAN])
    out = sketch.call(target, x, sketch.weight("w", matrix(2, 3)))
    graph = sketch.done(sketch.call(aten.relu.default, out), sketch.call(aten.neg.default, out))
    folded = FoldConstants().run(graph).graph_module
    folded.graph.lint()
    for found, expected in zip(folded(y := torch.randn(4, 2).double()), graph(y), strict=True):
        torch.testing.assert_close(found, expected)
    (product,) = (n for n in folded.graph.nodes if n.target is target)
    (total,) = product.users
    assert (total.target, shape_of(total)[1:], len(total.users)) == (aten.add.Tensor, (3,), 2)


def test_the_replaced_graph_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    collected: list[bool] = []
    monkeypatch.setattr("passes.ir.graph._WORTH_COLLECTING", 0)
    monkeypatch.setattr("passes.ir.graph.gc.collect", lambda: collected.append(True))
    FoldConstants().run(trace(Ffn(), torch.randn(4, 2)))
    assert collected


def test_folding_again_changes_nothing() -> None:
    once = FoldConstants().run(trace(Ffn(), torch.randn(4, 2)))
    assert not FoldConstants().run(once.graph_module).modified


@pytest.mark.parametrize("bias", [True, False])
def test_it_preserves_numbers_and_leaves_the_model_alone(bias: bool) -> None:
    model, x = Ffn(bias), torch.randn(5, 2)
    expected, before = model(x), {k: v.clone() for k, v in model.state_dict().items()}
    graph: fx.GraphModule = FoldConstants().run(trace(model, torch.randn(4, 2))).graph_module
    torch.testing.assert_close(graph(x), expected)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_an_addmm_whose_bias_others_read_gets_one_of_its_own() -> None:
    sketch = Sketch()
    x, bias = sketch.fixed(sketch.input("b", 2), [3.0, NAN]), sketch.weight("c", [1.0, 1.0, 1.0])
    out = sketch.call(aten.addmm.default, bias, x, sketch.weight("w", matrix(2, 3)))
    graph = sketch.done(out, sketch.call(aten.neg.default, bias))
    folded = FoldConstants().run(graph).graph_module
    for found, expected in zip(folded(y := torch.randn(4, 2).double()), graph(y), strict=True):
        torch.testing.assert_close(found, expected)
    (product,) = (node for node in folded.graph.nodes if node.target is aten.addmm.default)
    assert [str(n.target) for n in product.all_input_nodes if n.op == "get_attr"] == ["w_folded_bias", "w"]


def test_a_window_of_a_weight_reads_its_window_of_the_new_bias() -> None:
    sketch = Sketch()
    x, weight = sketch.fixed(sketch.input("b", 2), [3.0, NAN]), sketch.weight("w", matrix(5, 2))
    bias = sketch.weight("c", matrix(5, 1)[:, 0])
    parts = [[sketch.call(aten.slice.Tensor, p, 0, *bounds) for p in (weight, bias)] for bounds in ((0, 2), (2, 5))]
    products = [sketch.call(aten.linear.default, x, *part) for part in parts]
    graph = sketch.done(*products, sketch.call(aten.neg.default, bias))
    folded = FoldConstants().run(graph).graph_module
    for found, expected in zip(folded(y := torch.randn(4, 2).double()), graph(y), strict=True):
        torch.testing.assert_close(found, expected)
    biases = [n.args[2] for n in folded.graph.nodes if n.target is aten.linear.default]
    assert [(str(n.args[0].target), tuple(n.meta["val"].shape)) for n in biases] == [
        ("w_folded_bias", (2,)),
        ("w_folded_bias", (3,)),
    ]
