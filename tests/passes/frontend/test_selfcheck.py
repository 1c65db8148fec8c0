"""The front end checks itself: a wrong step, a model with a memory, a size the trace does not hold for."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn

import passes
from passes.frontend import prepare
from passes.ir.info import TraceError

aten = torch.ops.aten


def wrong(graph_module: fx.GraphModule) -> None:
    """One channel of many, by a twentieth: what a look at the largest entry of all would let through."""
    output = next(n for n in graph_module.graph.nodes if n.target is aten.relu.default)
    scale = torch.ones(4)
    scale[3] = 0.95
    graph_module.register_buffer("_scale", scale)
    with graph_module.graph.inserting_after(output):
        read = graph_module.graph.get_attr("_scale")
    read.meta["val"] = output.meta["val"][0]
    with graph_module.graph.inserting_after(read):
        new = graph_module.graph.call_function(aten.mul.Tensor, (output, read))
    new.meta["val"] = output.meta["val"]
    output.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)


class Large(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) * torch.tensor([1e6, 1.0, 1.0, 1.0])


def test_a_wrong_step_is_named_even_beside_an_outlier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "STEPS", (*prepare.STEPS, ("wrong", wrong)))
    with pytest.raises(TraceError, match=r"channel 3, by(.|\n)*First at fault: step wrong(.|\n)*report"):
        passes.trace(Large(), torch.randn(5, 4))


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.calls = nn.Linear(4, 4), []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.append(x.dim())
        return self.linear(x) * len(self.calls)


def test_a_model_that_changes_between_calls_is_refused() -> None:
    with pytest.raises(TraceError, match=r"differs from the model on(.|\n)*keep state between calls"):
        passes.trace(Counts(), torch.randn(6, 4))


def test_models_without_numbers_are_not_run() -> None:
    with torch.device("meta"):
        model, x = nn.Linear(4, 4), torch.ones(3, 4)
    assert passes.trace(model, x)
