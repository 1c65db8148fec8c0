"""The refit against least squares on the data themselves, and what the pass writes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import passes
from passes.ir.graph import get_attribute
from passes.rewrite.refit import Moments, RefitLinears, Refitting, refit

TOKENS, FEATURES, OUT = 60, 7, 3


def data(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(TOKENS, FEATURES, generator=generator) + 0.5
    return x, torch.randn(TOKENS, OUT, generator=generator), torch.randn(OUT, FEATURES, generator=generator)


def moments_of(x: torch.Tensor, y: torch.Tensor, *cuts: int) -> Moments:
    moments = Moments(x.shape[1], y.shape[1])
    for part in range(len(cuts) + 1):
        rows = slice((0, *cuts)[part], (*cuts, len(x))[part])
        moments.add(x[rows], y[rows])
    return moments


@given(st.integers(0, 50), st.lists(st.booleans(), min_size=FEATURES, max_size=FEATURES), st.booleans())
def test_without_a_penalty_it_is_least_squares(seed: int, marks: list[bool], bias: bool) -> None:
    x, y, weight = data(seed)
    kept = torch.tensor(marks)
    fitted, shift = refit(weight, moments_of(x, y), kept, bias=bias, ridge=0.0)
    columns = [x[:, kept].double(), *([torch.ones(TOKENS, 1).double()] if bias else [])]
    wanted = torch.linalg.lstsq(torch.cat(columns, 1), y.double()).solution
    torch.testing.assert_close(fitted[:, kept], wanted[: int(kept.sum())].T, rtol=1e-4, atol=1e-5)
    assert not fitted[:, ~kept].any()
    if bias:
        assert shift is not None
        torch.testing.assert_close(shift, wanted[-1], rtol=1e-4, atol=1e-5)
    else:
        assert shift is None


def test_a_penalty_holds_the_old_weights() -> None:
    x, y, weight = data(1)
    kept = torch.arange(FEATURES) != 2
    near = refit(weight, moments_of(x, y), kept, bias=False, ridge=1e9)[0]
    torch.testing.assert_close(near[:, kept].float(), weight[:, kept])
    penalty = 0.3 * float(x.double().square().sum(0).mean())
    rows = torch.cat([x[:, kept].double(), penalty**0.5 * torch.eye(FEATURES - 1, dtype=torch.float64)])
    wanted = torch.linalg.lstsq(rows, torch.cat([y.double(), penalty**0.5 * weight[:, kept].double().T])).solution.T
    found = refit(weight, moments_of(x, y), kept, bias=False, ridge=0.3)[0]
    torch.testing.assert_close(found[:, kept], wanted, rtol=1e-4, atol=1e-5)


def test_moments_do_not_depend_on_how_the_data_are_cut() -> None:
    x, y, _ = data(2)
    whole, parts = moments_of(x, y), moments_of(x, y, 1, 17, 40)
    assert whole.count == parts.count == TOKENS
    for name in ("inputs", "outputs", "gram", "cross"):
        torch.testing.assert_close(getattr(whole, name), getattr(parts, name), rtol=1e-5, atol=1e-5)
    assert whole.power == pytest.approx(float(y.square().sum()), rel=1e-5)


def test_features_that_say_nothing_new_go_without_a_trace() -> None:
    x, _, weight = data(3)
    x[:, 5] = 2 * x[:, 0] - x[:, 1] + 0.25  # a sum of others and a constant
    y = x @ weight.T
    kept = torch.arange(FEATURES) != 5
    fitted, bias = refit(weight, moments_of(x, y), kept, bias=True, ridge=0.0)
    assert bias is not None
    torch.testing.assert_close((x.double() @ fitted.T + bias).float(), y, rtol=1e-4, atol=1e-4)


def test_without_data_or_features_nothing_is_invented() -> None:
    _, _, weight = data(4)
    nothing = torch.zeros(FEATURES, dtype=torch.bool)
    fitted, bias = refit(weight, moments_of(*data(4)[:2]), nothing, bias=True, ridge=0.1)
    assert not fitted.any()
    torch.testing.assert_close(bias, data(4)[1].double().mean(0), rtol=1e-5, atol=1e-6)


class Transposed(nn.Module):
    """Two products with a weight as GPT-2 stores it, (in, out), and one as nn.Linear does."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Parameter(torch.randn(4, FEATURES))
        self.outer = nn.Linear(FEATURES, OUT)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.outer((x @ self.inner).relu())


def test_the_pass_writes_columns_and_bias_and_nothing_else() -> None:
    torch.manual_seed(0)
    model = Transposed().eval()
    graph = passes.trace(model, {"x": torch.randn(5, 4)})
    x = torch.randn(TOKENS, FEATURES)
    kept = torch.arange(FEATURES) % 2 == 0
    refits = {
        "outer.weight": Refitting(moments_of(x, torch.randn(TOKENS, OUT)), kept, 1e-3, bias="outer.bias"),
        "inner": Refitting(moments_of(x[:, :4], torch.randn(TOKENS, FEATURES)), torch.arange(4) < 3, 1e-3, out_dim=1),
    }
    outcome = RefitLinears(refits).run(graph).graph_module
    assert not get_attribute(outcome, "outer.weight")[:, ~kept].any()
    assert not get_attribute(outcome, "inner")[3].any()
    assert get_attribute(outcome, "inner")[:3].any()
    assert not torch.equal(get_attribute(outcome, "outer.bias"), model.outer.bias)
    assert torch.equal(get_attribute(graph, "outer.weight"), model.outer.weight)
    small = passes.shrink(outcome).graph_module
    assert get_attribute(small, "outer.weight").shape == (OUT, 4)


@pytest.mark.parametrize(
    ("name", "features", "message"),
    [
        ("outer.nothing", FEATURES, "the graph reads no parameter 'outer.nothing'"),
        ("outer.weight", 4, "reads 7 features; the moments are of 4"),
    ],
)
def test_refits_that_fit_nothing_are_refused(name: str, features: int, message: str) -> None:
    graph = passes.trace(Transposed().eval(), {"x": torch.randn(5, 4)})
    refitting = Refitting(Moments(features, OUT), torch.ones(features, dtype=torch.bool), 0.1)
    with pytest.raises(ValueError, match=message):
        RefitLinears({name: refitting}).requires(graph)
