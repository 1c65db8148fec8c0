"""The reference: from our graph or from torch.export's own module; what it refuses, what it skips."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from passes.frontend.trace import trace
from passes.verify.compare import compare, verify_equivalent
from passes.verify.errors import NotFiniteError, VerificationError
from passes.verify.record import record_reference
from tests.passes.verify.models import Net, changed, net_inputs


def test_infinite_references_are_refused() -> None:
    broken = changed(trace(Net(), net_inputs()), "down.bias", lambda b: b + torch.inf)
    with pytest.raises(NotFiniteError, match="not finite"):
        verify_equivalent(broken, broken)


def test_the_module_that_torch_export_made_can_be_the_reference() -> None:
    class InPlace(Net):
        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                hidden = self.up(self.embedding(ids))
            hidden.relu_().add_(mask.to(torch.float32).unsqueeze(-1))
            return self.down(hidden).softmax(-1, dtype=torch.float32)

    model, inputs = InPlace().eval(), net_inputs()
    sizes = {name: {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO} for name in inputs}
    exported = torch.export.export(model, (), inputs, dynamic_shapes=sizes)
    graph = trace(model, inputs)
    reference = record_reference(exported.module(), traced=graph)
    assert len(reference.trials) == 4
    assert 0 < reference.bounds[0].floor < 1e-6  # in float64 the softmax is, too
    assert compare(reference, graph).used < 1
    assert compare(reference, model).used < 1
    with pytest.raises(VerificationError, match="times what rounding explains"):
        compare(reference, changed(graph, "down.weight", lambda w: w * 1.01))


def test_fresh_inputs_that_the_model_refuses_are_listed_with_its_reason() -> None:
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            return x[:, :5].transpose(0, 1).gather(0, lengths.view(1, -1, 1).expand(1, -1, 4) % 4 + 0 * x.shape[1])

    graph = trace(Fixed(), (torch.randn(2, 5, 4), torch.tensor([3, 3])))
    reference = record_reference(graph)
    assert len(reference.skipped) + len(reference.trials) == 4


def test_random_numbers_are_the_same_in_every_precision() -> None:
    class Noisy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.rand_like(x)

    graph = trace(Noisy(), torch.randn(2, 5, 4))
    assert record_reference(graph).bounds[0].floor < 1e-6
    assert verify_equivalent(graph, graph).max_abs_diff == 0


def test_fresh_inputs_that_the_graph_refuses_are_not_tried_on_the_reference() -> None:
    """torch.export's own module has no guards: with one row it loses that dim, and says so in another rank."""

    class Squeezed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.unsqueeze(2).squeeze() * 2

    example = torch.randn(2, 5, 4)
    graph = trace(Squeezed(), example)
    sizes = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    exported = torch.export.export(Squeezed(), (example,), dynamic_shapes=(sizes,))
    reference = record_reference(exported.module(check_guards=False), traced=graph)
    assert len(reference.trials) > 1
    assert any("must be longer than 1" in skipped for skipped in reference.skipped)
    assert compare(reference, graph).used < 1
