"""Which constant input channels of a product fold into its bias, and why the others do not: the one predicate.

    x Wᵀ + b  =  x' W'ᵀ + (b + Σ_j W_:j c_j)        where input channel j is the constant c_j

Liveness (a folded channel is not read), the fold itself and the plan all ask here, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from passes.ops.linear_form import LinearForm

Numbers = Callable[[LinearForm], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Foldable:
    """``columns``: the input channels of one weight that fold, (in_features,) bool. ``reason``: why no others do."""

    columns: torch.Tensor
    reason: str | None = None


class Folding:
    """Answers for every weight of a graph.

    Args:
        uses: {weight: its linear products}.
        only_linear: whether a parameter is read by linear products alone.
        numbers: (is one constant, its number) of the input channels of a product, each of shape (in_features,).
    """

    def __init__(
        self, uses: Mapping[str, Sequence[LinearForm]], only_linear: Callable[[str], bool], numbers: Numbers
    ) -> None:
        self._uses = uses
        self._only_linear = only_linear
        self._numbers = numbers
        self._known: dict[str, Foldable] = {}

    def of(self, form: LinearForm) -> Foldable:
        """The decision for the weight of a product: one for all of its uses, since one bias has to serve them all."""
        name = form.weight_name
        if len({use.out_dim for use in self._uses[name]}) > 1:
            const, _ = self._numbers(form)
            return Foldable(torch.zeros_like(const), "the weight is used in two orientations")
        if name not in self._known:
            self._known[name] = self._decide(self._uses[name])
        return self._known[name]

    def _decide(self, uses: Sequence[LinearForm]) -> Foldable:
        const, value = self._numbers(uses[0])
        refusal = self._refusal(uses)
        if refusal is not None:
            return Foldable(torch.zeros_like(const), refusal)
        columns = const
        for use in uses[1:]:
            other, number = self._numbers(use)
            columns = columns & other & (number == value)
        reason = "it is another constant at another use of the weight" if bool((const & ~columns).any()) else None
        return Foldable(columns, reason)

    def _refusal(self, uses: Sequence[LinearForm]) -> str | None:
        """Why nothing folds into this weight's bias, whatever is constant."""
        if not self._only_linear(uses[0].weight_name):
            return "something other than a linear product reads the weight"
        if len({use.bias_name for use in uses}) > 1:
            return "the uses of the weight have different biases"
        if uses[0].bias is None and any(use.window is not None for use in uses):
            return "the weight is used in pieces and has no bias: a new one would have to be cut like it"
        return None
