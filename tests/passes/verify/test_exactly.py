"""Where rounding takes per cents of the outputs, float64 judges: errors that it would hide are found."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import passes
from passes.ir.graph import copy_graph, get_attribute, set_attribute
from passes.verify import VerificationError, verify_equivalent
from passes.verify.exactly import exactness, numbers_anew
from passes.verify.record import record_reference


class Cancelling(nn.Module):
    """Channels of 20,000 that cancel: in bfloat16 their rounding (64) hides what is left, about 1."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.up, self.out = nn.Linear(8, 8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        large = h + 20000.0 * torch.tanh(h.sum(-1, keepdim=True))
        return self.out(torch.relu(self.up(large - 20000.0 * torch.tanh(h.sum(-1, keepdim=True)))))


def example(dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(0)).to(dtype)


def masks() -> dict[str, torch.Tensor]:
    rows = torch.ones(16, 8, dtype=torch.bool)
    rows[::3] = False  # their biases stay: constants that fold into out.bias
    return {"up.weight": rows}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_rounding_hides_is_compared_in_float64(dtype: torch.dtype) -> None:
    model = Cancelling().to(dtype).eval()
    result = passes.shrink(passes.trace(model, example(dtype)), masks())
    agreement = result.report.agreement
    assert agreement is not None
    assert agreement.floor > 0.3 * agreement.scale
    assert agreement.exactly is not None
    assert agreement.exactly <= 1
    assert result.report.parameters_after < result.report.parameters_before
    assert "in float64 they agree" in str(agreement)


def test_a_sharp_bound_needs_no_float64() -> None:
    model = Cancelling().double().eval()
    agreement = passes.shrink(passes.trace(model, example(torch.float64)), masks()).report.agreement
    assert agreement is not None
    assert agreement.exactly is None


@pytest.mark.parametrize(
    ("name", "change"), [("out.weight", 0.97), ("out.bias", 0.9), ("up.weight", 1.03), ("out.weight", 0.0)]
)
def test_an_error_of_some_per_cents_is_refused_although_rounding_would_hide_it(name: str, change: float) -> None:
    model = Cancelling().bfloat16().eval()
    graph = passes.trace(model, example(torch.bfloat16))
    wrong = copy_graph(graph)
    set_attribute(wrong, name, nn.Parameter((get_attribute(graph, name) * change).bfloat16(), requires_grad=False))
    with pytest.raises(VerificationError, match=r"in float64 .* in bfloat16 rounding would hide it"):
        verify_equivalent(graph, wrong)


def test_numbers_that_only_one_graph_holds() -> None:
    model = Cancelling().eval()
    graph = passes.trace(model, example(torch.float32))
    other = copy_graph(graph)
    set_attribute(other, "out.bias", nn.Parameter(model.out.bias + 1, requires_grad=False))
    assert numbers_anew(other, graph) == {"out.bias"}
    small = passes.shrink(graph, masks()).graph_module
    assert "out.bias" in numbers_anew(small, graph)
    assert "out.weight" not in numbers_anew(small, graph)


def test_an_operator_without_a_float64_kernel_ends_the_comparison() -> None:
    graph = passes.trace(Cancelling().bfloat16().eval(), example(torch.bfloat16))
    reference = record_reference(graph)
    trial = reference.trials[0]
    assert exactness(graph, reference, trial, ()) is not None
    borrowed = copy.copy(trial)
    object.__setattr__(borrowed, "exact", False)
    assert exactness(graph, reference, borrowed, ()) is None
