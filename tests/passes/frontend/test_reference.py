"""The reference: the module before preparation, over the graph's parameters, masks on plain and computed weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune

import passes
from passes.frontend.bake import BakeWeights
from passes.frontend.reference import masked_reference
from passes.ir.graph import copy_graph, get_attribute
from passes.ir.info import trace_info
from passes.ir.manager import PassManager

X = torch.randn(3, 4)


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.dropout(self.up(x), 0.5, self.training)
        y.relu_()
        return self.down(y)


def rows(shape: tuple[int, ...]) -> torch.Tensor:
    mask = torch.ones(shape, dtype=torch.bool)
    mask[1] = False
    return mask


def test_it_is_unprepared_and_shares_the_models_parameters() -> None:
    model = Mlp()
    reference = trace_info(passes.trace(model, X)).reference
    assert reference is not None
    assert {n.target for n in reference.graph.nodes} >= {torch.ops.aten.relu_.default, torch.ops.aten.dropout.default}
    assert get_attribute(reference, "up.weight") is model.up.weight


def test_masks_are_on_what_the_graph_reads_now() -> None:
    model = Mlp().eval()
    graph = copy_graph(passes.trace(model, X))
    with torch.no_grad():
        model.up.weight.add_(1)  # trained in place
    mask = rows((6, 4))
    masked = copy.deepcopy(model)
    with torch.no_grad():
        masked.up.weight.mul_(mask)
    torch.testing.assert_close(masked_reference(graph, {"up.weight": mask})(X), masked(X), rtol=0, atol=0)
    torch.testing.assert_close(masked_reference(graph)(X), model(X), rtol=0, atol=0)


@pytest.mark.parametrize("bake", [False, True])
def test_a_mask_may_name_the_weight_that_baking_computes(bake: bool) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).eval()
    prune.random_unstructured(model[0], "weight", 0.3)
    graph = passes.trace(model, X)
    if bake:
        graph = PassManager((BakeWeights(),)).run(graph).graph_module
    reference = masked_reference(graph, {"0.weight": rows((6, 4))})
    weight = model[0].weight_orig * model[0].weight_mask * rows((6, 4))
    expected = model[2](torch.relu(functional.linear(X, weight, model[0].bias)))
    torch.testing.assert_close(reference(X), expected)


def test_a_rewritten_graph_stands_for_itself() -> None:
    graph = passes.trace(Mlp().eval(), X)
    small = passes.shrink(graph, {"up.weight": rows((6, 4)), "up.bias": rows((6,))}).graph_module
    assert trace_info(small).reference is None
    torch.testing.assert_close(masked_reference(small)(X), small(X), rtol=0, atol=0)


def test_masks_that_fit_nothing_are_named() -> None:
    with pytest.raises(KeyError, match=r"'up\.wait'"):
        masked_reference(passes.trace(Mlp().eval(), X), {"up.wait": rows((6, 4))})
