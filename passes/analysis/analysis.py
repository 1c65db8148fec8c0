"""One analysis of a graph: what is constant, what is live, what folds, and what every axis keeps.

`passes.shrink`, `passes.plan_shrink` and `passes.explain` are three verbs on it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import fx

from passes.analysis.constants import Constants, WeightReader
from passes.analysis.coupling.solver import Coupling
from passes.analysis.keep import choose_keeps, least_keeps
from passes.analysis.liveness import Liveness
from passes.analysis.plans import find_fold, head_views, plan_cuts
from passes.ops.table import unknown_operators
from passes.options import ShrinkOptions
from passes.plan.data import Cut, Fold, HeadView


@dataclass(frozen=True)
class Analysis:
    """Facts of one graph under masks, each computed when it is first asked for."""

    graph_module: fx.GraphModule
    constants: Constants
    options: ShrinkOptions
    unknown: tuple[str, ...]  # operators without a rule

    @functools.cached_property
    def liveness(self) -> Liveness:
        with torch.no_grad():
            return Liveness(self.constants)

    @functools.cached_property
    def least(self) -> Coupling:
        """The least every axis keeps: dead sublayers nothing, where `coupling` keeps one index of each."""
        with torch.no_grad():
            return least_keeps(self.constants, self.liveness, self.options)

    @functools.cached_property
    def coupling(self) -> Coupling:
        """What every axis keeps."""
        with torch.no_grad():
            return choose_keeps(self.constants, self.liveness, self.options)

    def folds(self) -> tuple[Fold, ...]:
        """Which input channels of which weights fold into which biases."""
        found = (find_fold(self.graph_module, self.constants, uses) for uses in self.constants.uses.values())
        return tuple(fold for fold in found if fold is not None)

    def cuts(self) -> tuple[Cut, ...]:
        """One `Cut` per parameter that changes."""
        with torch.no_grad():
            return plan_cuts(self.graph_module, self.coupling, self.constants, self.liveness)

    def head_views(self) -> tuple[HeadView, ...]:
        """How the parameters' dims are viewed as (heads, dims), before and after."""
        return head_views(self.coupling)

    def conservative(self) -> tuple[str, ...]:
        """Operators that got the default, for the report: unknown ones, and those whose rule did not fit a call."""
        failed = {operator: f"{operator} (its rule failed: {why})" for operator, why in self.constants.failures.items()}
        unknown = {name: name for name in self.unknown}
        return tuple(sorted((unknown | failed).values()))


def analyse(
    graph_module: fx.GraphModule,
    masks: Mapping[str, torch.Tensor] | None = None,
    read: WeightReader | None = None,
    options: ShrinkOptions | None = None,
) -> Analysis:
    """The analysis of a traced graph; arguments as for `Constants`. Nothing is written."""
    with torch.no_grad():
        constants = Constants(graph_module, masks, read)
        unknown = tuple(unknown_operators(graph_module.graph))
        return Analysis(graph_module, constants, options or ShrinkOptions(), unknown)
