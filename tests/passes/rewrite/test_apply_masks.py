"""apply-masks: it fires (golden text), refuses, is idempotent, and preserves numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import fx, nn

from passes.frontend.trace import trace
from passes.ir.graph import get_attribute
from passes.masks import MaskError
from passes.rewrite.apply_masks import ApplyMasks
from tests.passes.golden_text import printed

MASKS = {"0.weight": torch.tensor([[1, 0], [0, 0], [1, 1]]).bool(), "0.bias": torch.tensor([1, 0, 1]).bool()}


@pytest.fixture
def model() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    with torch.no_grad():
        model[0].weight.copy_(torch.arange(1.0, 7.0).view(3, 2))
        model[0].bias.copy_(torch.tensor([7.0, 8.0, 9.0]))
    return model


@pytest.fixture
def graph(model: nn.Sequential) -> fx.GraphModule:
    return trace(model, torch.randn(4, 2))


def test_masked_entries_become_zeros(graph: fx.GraphModule, golden: Callable[[str, str], None]) -> None:
    result = ApplyMasks(MASKS).run(graph)
    assert result.modified
    golden("apply_masks", printed(result.graph_module))


@pytest.mark.parametrize(
    ("masks", "reason"),
    [
        ({"1.weight": torch.ones(3).bool()}, "'1.weight': the graph reads no parameter of that name"),
        ({"0.bias": torch.ones(1).bool()}, r"'0.bias' has shape \(1,\); the parameter has \(3,\)"),
    ],
)
def test_masks_that_do_not_fit_are_refused(graph: fx.GraphModule, masks: dict[str, torch.Tensor], reason: str) -> None:
    with pytest.raises(MaskError, match=reason):
        ApplyMasks(masks).requires(graph)


def test_masking_again_changes_nothing(graph: fx.GraphModule) -> None:
    once = ApplyMasks(MASKS).run(graph)
    assert not ApplyMasks(MASKS).run(once.graph_module).modified
    assert not ApplyMasks({"0.weight": torch.ones(3, 2).bool()}).run(graph).modified


def test_a_mask_that_hides_nothing_does_not_end_the_work(graph: fx.GraphModule) -> None:
    result = ApplyMasks({"0.weight": torch.ones(3, 2).bool(), "0.bias": MASKS["0.bias"]}).run(graph)
    assert get_attribute(result.graph_module, "0.bias")[1] == 0


def test_it_computes_what_masked_weights_compute_and_leaves_the_model_alone(
    model: nn.Sequential, graph: fx.GraphModule
) -> None:
    x, before = torch.randn(5, 2), model[0].weight.clone()
    masked = ApplyMasks(MASKS).run(graph).graph_module
    expected = torch.relu(x @ (model[0].weight * MASKS["0.weight"]).T + model[0].bias * MASKS["0.bias"])
    torch.testing.assert_close(masked(x), expected)
    assert torch.equal(model[0].weight, before)
