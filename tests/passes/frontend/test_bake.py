"""bake-weights: it fires (golden text), refuses, is idempotent, and preserves numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import fx, nn
from torch.nn import functional
from torch.nn.utils import parametrize, prune

import passes
from passes.frontend.bake import BakeWeights
from passes.frontend.trace import trace
from tests.passes.golden_text import printed

pytestmark = pytest.mark.filterwarnings("ignore:The tensor attributes")


class Times(nn.Module):
    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor * self.mask


class MaskedLinear(nn.Linear):
    """A layer that carries its own mask, as many pruning tools write them."""

    def __init__(self) -> None:
        super().__init__(2, 3)
        self.register_buffer("mask", ROWS[:, None].expand(3, 2).clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight * self.mask, self.bias)


ROWS = torch.tensor([1.0, 0.0, 1.0])


def pruned() -> nn.Sequential:
    model = mlp(nn.Linear(2, 3))
    prune.custom_from_mask(model[0], "weight", ROWS[:, None].expand(3, 2))
    prune.custom_from_mask(model[0], "bias", ROWS)
    return model


def parametrized() -> nn.Sequential:
    model = mlp(nn.Linear(2, 3))
    parametrize.register_parametrization(model[0], "weight", Times(ROWS[:, None].expand(3, 2).clone()))
    parametrize.register_parametrization(model[0], "bias", Times(ROWS.clone()))
    return model


def mlp(first: nn.Linear) -> nn.Sequential:
    with torch.no_grad():
        first.weight.copy_(torch.arange(1.0, 7.0).view(3, 2))
        first.bias.copy_(torch.tensor([7.0, 8.0, 9.0]))
    last = nn.Linear(3, 2)
    with torch.no_grad():
        last.weight.copy_(torch.arange(1.0, 7.0).view(2, 3))
        last.bias.copy_(torch.tensor([1.0, 2.0]))
    return nn.Sequential(first, nn.ReLU(), last)


MODELS: dict[str, Callable[[], nn.Sequential]] = {
    "torch.nn.utils.prune": pruned,
    "parametrizations": parametrized,
    "a layer with its own mask": lambda: mlp(MaskedLinear()),
}


@pytest.mark.parametrize("name", MODELS)
def test_computed_weights_become_parameters_under_their_public_names(
    name: str, golden: Callable[[str, str], None]
) -> None:
    result = BakeWeights().run(trace(MODELS[name](), torch.randn(4, 2)))
    assert result.modified
    assert set(result.facts["weights"]) <= {"0.weight", "0.bias"}
    if name == "torch.nn.utils.prune":
        golden("bake_weights", printed(result.graph_module))


@pytest.mark.parametrize("name", MODELS)
def test_masks_that_are_part_of_the_model_need_no_argument(name: str) -> None:
    model, x = MODELS[name](), torch.randn(5, 2)
    result = passes.shrink(passes.trace(model, torch.randn(4, 2)))
    torch.testing.assert_close(result.graph_module(x), model(x))
    bias_stays = name == "a layer with its own mask"  # it does not mask its bias: the row is constant, and folds
    assert result.plan.small_shape("0.weight", (3, 2)) == (2, 2)
    assert len(result.plan.folds) == 1
    assert (result.plan.folds[0].constants == (8.0,)) is bias_stays


class Transposed(nn.Module):
    """A weight that is only viewed stays what it is: baking would copy it and break ties."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight.t()) @ self.weight.t()


class DataDependent(nn.Module):
    """A weight computed from the input is no parameter."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, x.t() @ x)


@pytest.mark.parametrize("model", [Transposed(), DataDependent(), nn.Linear(2, 3)])
def test_it_refuses(model: nn.Module) -> None:
    graph = trace(model, torch.randn(4, 2))
    result = BakeWeights().run(graph)
    assert not result.modified
    assert result.graph_module is graph


def test_baking_again_changes_nothing() -> None:
    once = BakeWeights().run(trace(pruned(), torch.randn(4, 2)))
    assert not BakeWeights().run(once.graph_module).modified


@pytest.mark.parametrize("name", MODELS)
def test_it_preserves_numbers(name: str) -> None:
    model, x = MODELS[name](), torch.randn(5, 2)
    graph: fx.GraphModule = BakeWeights().run(trace(model, torch.randn(4, 2))).graph_module
    torch.testing.assert_close(graph(x), model(x), rtol=0, atol=0)
    assert {n for n, _ in graph.named_parameters()} == {f"{i}.{leaf}" for i in (0, 2) for leaf in ("weight", "bias")}
