"""Bases of heads against the best low rank, computed from all the data at once."""

from __future__ import annotations

import torch

from bpc.oneshot.bases import KeyMoments, narrowed_values, narrowing_keys, value_basis
from bpc.oneshot.heads import Heads
from passes.rewrite.refit import Moments, refit
from passes.rewrite.turn_heads import HeadFeatures

TOKENS, HEADS, SHARED, DIMS = 400, 4, 2, 6


def features(heads: int, side: str = "out") -> HeadFeatures:
    return HeadFeatures("w", torch.arange(heads * DIMS).view(heads, DIMS), side)  # type: ignore[arg-type]


GROUPED = Heads(features(HEADS), features(SHARED), features(SHARED), features(HEADS, "in"))


def data(features: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(features, features, generator=generator)
    return torch.randn(TOKENS, features, generator=generator) @ mix + torch.randn(features, generator=generator)


def test_scores_of_fewer_dims_are_the_best_of_that_rank() -> None:
    queries, keys = data(HEADS * DIMS, 0), data(SHARED * DIMS, 1)
    moments = KeyMoments(GROUPED)
    for start in range(0, TOKENS, 100):
        moments.add(queries[start : start + 100], keys[start : start + 100])
    basis = moments.basis()
    for rank in (1, 3, DIMS):
        narrow = narrowing_keys(basis, rank)
        for shared in range(SHARED):
            # All queries of the heads that share these keys, against all keys but for what they have in common.
            q = queries.double().view(TOKENS, HEADS, DIMS)[:, shared * 2 : shared * 2 + 2].flatten(0, 1)
            k = keys.double().view(TOKENS, SHARED, DIMS)[:, shared]
            k = k - k.mean(0)
            best = torch.linalg.svdvals(q @ k.T)[rank:].square().sum()
            lost = (q @ k.T - (q @ narrow[shared].T) @ k.T).square().sum()
            assert torch.allclose(lost, best, rtol=1e-6, atol=1e-6 * float((q @ k.T).square().sum()))


def test_values_of_fewer_dims_are_the_best_of_that_rank() -> None:
    """One head with a weight of its own: what the rest of the layer could take over does not blur the comparison."""
    own = Heads(None, None, features(1), features(1, "in"))
    x = data(DIMS, 2).double()
    weight = torch.randn(9, DIMS, generator=torch.Generator().manual_seed(3))
    moments = Moments(DIMS, 9)
    moments.add(x, x @ weight.double().T)
    basis = value_basis(weight, moments, own, bias=True)
    centred = x - x.mean(0)
    singular = torch.linalg.svdvals(centred @ weight.double().T)
    for rank in (1, 3, 5):
        fitted, _ = narrowed_values(weight, moments, own, basis, rank, bias=True, ridge=1e-12)
        lost = (centred @ (weight.double() - fitted).T).square().sum()
        assert torch.allclose(lost, singular[rank:].square().sum(), rtol=1e-4)
        assert torch.linalg.matrix_rank(fitted, rtol=1e-6) == rank


def test_narrowed_values_are_a_refit_in_the_turned_basis() -> None:
    x = data(HEADS * DIMS, 4)
    weight = torch.randn(9, HEADS * DIMS, generator=torch.Generator().manual_seed(5))
    moments = Moments(HEADS * DIMS, 9)
    moments.add(x, x @ weight.T)
    basis = value_basis(weight, moments, GROUPED, bias=False)
    turn = torch.block_diag(*basis.repeat_interleave(2, 0))
    turned = Moments(HEADS * DIMS, 9)
    turned.add(x @ turn.T.float(), x @ weight.T)
    kept = (torch.arange(DIMS) < 2).repeat(HEADS)
    wanted, _ = refit(weight.double() @ torch.linalg.inv(turn), turned, kept, bias=False, ridge=1e-2)
    fitted, shift = narrowed_values(weight, moments, GROUPED, basis, 2, bias=False, ridge=1e-2)
    assert shift is None
    assert torch.allclose(fitted, wanted @ turn, atol=1e-3)
