"""What a rule is: everything the compiler knows about one family of operators.

A rule answers for every tensor input. What it does not mention is taken to be read whole and to keep its shape: see
`Liveness` and `Ties.mentioned`. A rule that fails on a node it was not written for is not an error of the user's: the
node then gets the conservative default, and the report names it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import fx

from passes.ops.facts import Fact
from passes.ops.linear_form import LinearForm
from passes.ops.ties import Ties

Live = Mapping[fx.Node, torch.Tensor]


class Kind(enum.Enum):
    """What an operator is to those who only look through a graph: roles, reach, attention cores."""

    VIEW = "rearranges, selects, repeats or casts; no arithmetic"
    SUM = "adds or subtracts"
    PRODUCT = "multiplies or divides, entry by entry"
    POINTWISE = "another function of the entries at one place"
    GATE = "multiplies one half of a dim by a function of the other"
    LINEAR = "multiplies by a parameter matrix"
    MATMUL = "multiplies two computed matrices"
    CONVOLUTION = "convolves with a kernel"
    ATTENTION = "a whole attention core"
    SOFTMAX = "a softmax along one dim"
    NORM = "normalises over channels"
    REDUCTION = "reduces dims, as written-out normalisations do"
    LOOKUP = "picks entries of its first input by the others"
    CREATION = "makes a value of sizes and numbers"
    OTHER = "anything else"


class Facts(Protocol):
    """What rules may ask about values and weights (answered by `passes.analysis.constants.Constants`)."""

    def fact(self, node: fx.Node) -> Fact:
        """The constant channels of a value."""

    def weight(self, name: str) -> torch.Tensor | None:
        """A parameter's numbers with its mask applied; None if they cannot be read."""

    def pattern(self, name: str) -> torch.Tensor | None:
        """Which entries of a parameter are not 0; None if it has neither numbers nor a mask: it counts as dense."""

    def folds(self, form: LinearForm) -> torch.Tensor:
        """Input channels of a product, (in_features,), that fold into its bias."""

    def folded_constants(self, form: LinearForm) -> tuple[torch.Tensor, torch.Tensor]:
        """(is one constant, its number) of the input channels of a product, each of shape (in_features,)."""

    def row_stochastic(self, node: fx.Node) -> bool:
        """The rows (last dim) of a value sum to 1."""

    def shift_invariant(self, node: fx.Node) -> bool:
        """One number added to a whole row (last dim) of a value changes no output."""


class Keeps(Protocol):
    """What `resize` may ask: how many indices the dims of values keep (answered by the solved coupling)."""

    def keep(self, node: fx.Node, dim: int) -> torch.Tensor | None:
        """Kept indices of a channel dim, bool of its size; None for data dims and sizes of 1."""

    def count(self, node: fx.Node, dim: int) -> int | None:
        """How many indices a channel dim keeps; None where it does not shrink."""


def _always(node: fx.Node) -> bool:
    return True


@dataclass(frozen=True)
class Rule:
    """Everything about one operator family.

    ``constant(node, facts)``: the `Fact` of the result (forward).
    ``live(node, live_out, facts)``: which channels of each tensor input the live output channels read (backward); one
        bool tensor of the input's fact shape per input. An input that is left out is read whole.
    ``ties(node, ties, facts)``: which axes of inputs and output must shrink together. Axes left out keep all indices.
    ``resize(node, keeps)``: rewrite the literal sizes, bounds and counts among the arguments. None where there are
        none; an axis of the result that no relation binds then keeps all indices, for nothing would follow the cut.
    ``kind``: what structure is told.
    ``applies``: whether a call is one the rule was written for; others get the conservative default.
    ``tabular``: the result is still a *table* when its inputs are: a lookup or pointwise operator, no linear, conv or
        attention. Tables may keep more than their users need; the users select.
    """

    name: str
    constant: Callable[[fx.Node, Facts], Fact]
    live: Callable[[fx.Node, torch.Tensor, Facts], Live]
    ties: Callable[[fx.Node, Ties, Facts], None]
    resize: Callable[[fx.Node, Keeps], None] | None = None
    kind: Kind = Kind.OTHER
    applies: Callable[[fx.Node], bool] = _always
    tabular: bool = False
