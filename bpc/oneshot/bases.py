"""The basis of every head in which its dims can be dropped one after the other at the least loss.

*Values.* What the output linear makes of head h is W_h x_h, x with covariance C. Of all that rank r can say, the
singular vectors of W C^½ say most: with W C^½ = U s Vᵀ and R = Vᵀ C^-½, R x has independent dims of variance 1, and dim
i of it adds s_i² to the power of the output. Heads that share values share R: their W are stacked, their C averaged.

*Queries and keys.* Of the scores qᵀk, with E[qqᵀ] = P and k of covariance Q (what all keys have in common adds the same
to all scores of a row, which softmax ignores): P^½ Q^½ = U s Vᵀ, A = s^½ Uᵀ P^-½ and B = s^½ Vᵀ Q^-½ give
(A q)·(B k) = q·k, and the first r dims are the best rank r.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bpc.oneshot.heads import Heads
from passes.rewrite.refit import Moments, refit

_LEAST = 1e-4  # of the largest standard deviation of a head: directions below are taken to vary by as much


class KeyMoments:
    """Sums over tokens of qqᵀ, kkᵀ and k of every shared head, in float64."""

    def __init__(self, heads: Heads) -> None:
        assert heads.query is not None
        assert heads.key is not None
        self._heads = heads
        shared, dims = heads.key.index.shape
        self.queries, self.keys = (torch.zeros(shared, dims, dims, dtype=torch.float64) for _ in range(2))
        self.mean = torch.zeros(shared, dims, dtype=torch.float64)
        self.counts = [0, 0]

    def add(self, queries: Tensor, keys: Tensor) -> None:
        """More tokens of what the two linears give: (tokens, out features), of each as many as there are."""
        assert self._heads.query is not None
        assert self._heads.key is not None
        q = queries[:, self._heads.query.index].double().unflatten(1, (len(self.keys), -1))  # (tokens, shared, each, d)
        k = keys[:, self._heads.key.index].double()
        self.queries += torch.einsum("tshi,tshj->sij", q, q) / q.shape[2]
        self.keys += torch.einsum("tsi,tsj->sij", k, k)
        self.mean += k.sum(0)
        self.counts = [self.counts[0] + len(q), self.counts[1] + len(k)]

    def basis(self) -> Tensor:
        """A of the module docstring, (shared heads, dims, dims); B is its inverse, transposed."""
        asked, answered = (max(count, 1) for count in self.counts)
        mean = self.mean / answered
        root, back = _roots(self.queries / asked)
        other, _ = _roots(self.keys / answered - mean[:, :, None] * mean[:, None, :])
        left, singular, _ = torch.linalg.svd(root @ other)
        return singular.sqrt()[:, :, None] * (left.transpose(1, 2) @ back)


def value_basis(weight: Tensor, moments: Moments, heads: Heads, *, bias: bool) -> Tensor:
    """R of the module docstring, (shared heads, dims, dims).

    ``weight``: the output linear's, (out, features); ``moments`` of what it reads.
    """
    assert heads.value is not None
    assert heads.output is not None
    gram = (moments.centred()[0] if bias else moments.gram) / max(moments.count, 1)
    index = heads.output.index  # (heads, dims)
    shared = len(heads.value.index)
    covariance = gram[index[:, :, None], index[:, None, :]].unflatten(0, (shared, -1)).mean(1)
    stacked = (
        weight.double()[:, index].permute(1, 0, 2).unflatten(0, (shared, -1)).flatten(1, 2)
    )  # (shared, each·out, d)
    root, back = _roots(covariance)
    right = torch.linalg.svd(stacked @ root, full_matrices=False).Vh
    return right @ back


def narrowed_values(
    weight: Tensor, moments: Moments, heads: Heads, basis: Tensor, dims: int, *, bias: bool, ridge: float
) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of the output linear, refitted to ``dims`` of each head in ``basis``, as it would be without."""
    assert heads.output is not None
    index = heads.output.index
    matrices = basis.repeat_interleave(len(index) // len(basis), 0)
    whole = torch.zeros(weight.shape[1], weight.shape[1], dtype=torch.float64)
    whole[index[:, :, None], index[:, None, :]] = matrices
    back = torch.zeros_like(whole)
    back[index[:, :, None], index[:, None, :]] = torch.linalg.inv(matrices)
    kept = torch.zeros(weight.shape[1], dtype=torch.bool)
    kept[index[:, :dims].flatten()] = True
    fitted, shift = refit(weight.double() @ back, moments.turned(whole), kept, bias=bias, ridge=ridge)
    return fitted @ whole, shift


def narrowing_keys(basis: Tensor, dims: int) -> Tensor:
    """What queries are multiplied by, (shared heads, dims, dims), for scores of the first ``dims`` in ``basis``."""
    undone = torch.linalg.inv(basis)  # its rows from `dims` on would meet what is gone
    kept = torch.zeros(basis.shape[1], dtype=basis.dtype)
    kept[:dims] = 1
    return undone @ (kept[:, None] * basis)


def _roots(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """C^½ and C^-½ of symmetric matrices (…, dims, dims)."""
    values, vectors = torch.linalg.eigh(covariance)
    deviations = values.clamp_min(0).sqrt()
    least = _LEAST * deviations.amax(-1, keepdim=True) + 1e-12
    deviations = torch.maximum(deviations, least)
    flipped = vectors.transpose(-2, -1)
    return vectors @ (deviations[..., None] * flipped), vectors @ (flipped / deviations[..., None])
