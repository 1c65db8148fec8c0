"""Linear layers that hold less than their forward sees compute what the plain ones with zeros do."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize, prune

from passes.ir.compact import compact, compact_layers, expand, expanded, from_runs, held_by, output_dim, runs

ROWS, COLUMNS = (1, 4), (0, 2, 3)  # of 5 and of 6
X = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0)).double()


class Conv1D(nn.Module):
    """As transformers has it: the weight is (in, out), and its sizes are repeated beside it."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf)), nn.Parameter(torch.randn(nf))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.shape[:-1], self.nf)


def linear(bias: bool = True) -> nn.Module:
    return nn.Linear(len(COLUMNS), len(ROWS), bias=bias)


CASES = {
    "linear": (linear, {0: (5, ROWS), 1: (6, COLUMNS)}),
    "without bias": (lambda: linear(bias=False), {0: (5, ROWS), 1: (6, COLUMNS)}),
    "conv1d": (lambda: Conv1D(len(ROWS), len(COLUMNS)), {1: (5, ROWS), 0: (6, COLUMNS)}),
}


@pytest.fixture(params=CASES)
def layer(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    make, held = CASES[request.param]
    made = make().double()
    compact(made, held)
    return made


def test_rows_that_are_gone_give_zeros_and_columns_are_not_read(layer: nn.Module) -> None:
    small, y = layer._parameters["weight"], layer(X)
    assert y.shape == (2, 3, 5)
    assert not bool(y[..., [0, 2, 3]].any())
    assert small is not None
    product = X[..., list(COLUMNS)] @ (small.t() if output_dim_of(layer) == 0 else small)
    bias = layer._parameters["bias"]
    torch.testing.assert_close(y[..., list(ROWS)], product if bias is None else product + bias)


def output_dim_of(layer: nn.Module) -> int:
    return 0 if isinstance(layer, nn.Linear) else 1


def test_the_plain_layer_computes_the_same(layer: nn.Module) -> None:
    expected = layer(X)
    weight = layer._parameters["weight"]
    with expanded(nn.Sequential(layer)):
        assert not compact_layers(layer)
        torch.testing.assert_close(layer(X), expected)
    assert layer._parameters["weight"] is weight
    assert held_by(layer)[output_dim_of(layer)] == (5, ROWS)
    torch.testing.assert_close(layer(X), expected)
    plain = copy.deepcopy(layer)
    expand(plain)
    assert type(plain) in (nn.Linear, Conv1D)
    assert output_dim(plain) == output_dim_of(layer)
    torch.testing.assert_close(plain(X), expected)


def test_it_is_copied_pickled_traced_trained_and_moved(layer: nn.Module) -> None:
    expected = layer(X)
    exported = torch.export.export(layer, (X,), strict=False).module()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), exported):
        torch.testing.assert_close(other(X), expected)
    copied = copy.deepcopy(layer)
    copied.to("meta")(X.to("meta"))
    copied.to_empty(device="cpu")
    copied.load_state_dict(layer.state_dict())
    torch.testing.assert_close(copied(X), expected)
    expected.sum().backward()
    assert all(p.grad is not None for p in layer.parameters())
    assert "holds (" in repr(layer)


def test_a_computed_weight_is_not_laid_out_and_nothing_is_left_half_done(layer: nn.Module) -> None:
    """Pruned or parametrized by torch, it runs as it did; without its parameter, `expand` would leave it small."""
    expected, other = layer(X), copy.deepcopy(layer)
    both = nn.Sequential(other, prune.identity(layer, "weight"))
    assert repr(both).count("holds (") == 2
    with pytest.raises(ValueError, match="is computed from other tensors"), expanded(both):
        pass
    assert len(compact_layers(both)) == 2
    for one in both:
        torch.testing.assert_close(one(X), expected)
    prune.remove(layer, "weight")
    parametrize.register_parametrization(layer, "weight", nn.Identity())
    with pytest.raises(ValueError, match="remove_parametrizations"):
        expand(layer)
    torch.testing.assert_close(layer(X), expected)
    parametrize.remove_parametrizations(layer, "weight")
    expand(layer)
    torch.testing.assert_close(layer(X), expected)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"2 places of 5 do not fit dim 1 of \(2, 3\)"):
        compact(linear(), {1: (5, ROWS)})
    with pytest.raises(TypeError, match="LayerNorm cannot be made compact"):
        compact(nn.LayerNorm(2), {0: (5, ROWS)})
    for ends in ((0, 3, 3, 4), (0,), (0, 7)):
        with pytest.raises(ValueError, match="no ends of runs within 6"):
            from_runs(ends, 6)


@given(st.sets(st.integers(0, 30)))
def test_runs_say_places_shorter(places: set[int]) -> None:
    ordered = tuple(sorted(places))
    assert from_runs(runs(ordered), 31) == ordered
