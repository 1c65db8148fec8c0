"""fold-constants: it fires (golden text), refuses, is idempotent, and preserves numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import fx, nn
from torch.nn import functional

from passes.frontend.trace import trace
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
