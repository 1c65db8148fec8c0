"""What a transfer rule is: the three things the analyses ask of an operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import fx

from passes.ops.facts import Fact

if TYPE_CHECKING:
    from passes.analysis.constants import Constants
    from passes.ops.ties import Ties

Live = Mapping[fx.Node, torch.Tensor]


@dataclass(frozen=True)
class Rule:
    """Transfer functions of one operator family.

    ``constant(node, constants)``: the `Fact` of the result (forward).
    ``live(node, live_out, constants)``: which channels of each tensor input the live output channels read (backward);
        one bool tensor of the input's fact shape per input. Inputs left out are not read.
    ``ties(node, ties, constants)``: which axes of inputs and output must shrink together.
    ``tabular``: the result is still a *table* when its inputs are: a lookup or pointwise operator, no linear, conv or
        attention. Tables may keep more than their users need; the users select.
    """

    name: str
    constant: Callable[[fx.Node, Constants], Fact]
    live: Callable[[fx.Node, torch.Tensor, Constants], Live]
    ties: Callable[[fx.Node, Ties, Constants], None]
    tabular: bool = False
