"""The plan as users hold it: the data, and what it takes to apply it to a module of theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from torch import nn

from passes.plan.apply import apply_plan, with_masks
from passes.plan.check import Check
from passes.plan.data import Masks, PlanData
from passes.plan.errors import ModuleViewError
from passes.plan.numbers import changed_attributes

# (model with its zeros, what to reproduce) -> coarser and coarser plans for it, with the names of their granularities.
CoarserPlans: TypeAlias = Callable[[nn.Module, Check], Iterator[tuple[str, "Plan"]]]


@dataclass(frozen=True)
class Origin:
    """What a plan that comes from `passes.shrink` remembers of it, in memory only.

    ``masks``: those that shrink was given, under the names the graph uses. ``granularity``: how finely it cut
    attention. ``example``: the traced example and what the small graph makes of it. ``coarser``: plans to fall back on
    where a forward cannot follow.
    """

    masks: Masks
    granularity: str
    example: Callable[[], Check]
    coarser: CoarserPlans


@dataclass(frozen=True, repr=False)
class Plan(PlanData):
    """`PlanData` that applies to modules. ``origin`` is not part of the data: JSON and pickles leave it out."""

    origin: Origin | None = field(default=None, compare=False, repr=False)

    def apply_to(self, model: nn.Module, masks: Masks | None = None, check: Check | None = None) -> nn.Module:
        """The module view: a copy of ``model`` with smaller parameters, which computes what the masked model does.

        ``masks`` and ``check`` default to what a plan from `shrink` remembers: its masks, the traced example and what
        the small graph makes of it. A plan read back remembers neither: give the masks, unless the model's weights have
        their zeros. Where the forward has one head size for all of a layer, or one head count for all layers, the
        module keeps more than the graph (`view` says how much more). Raises `ModuleViewError` where nothing fits.
        """
        return self.view(model, masks, check).module

    def view(self, model: nn.Module, masks: Masks | None = None, check: Check | None = None) -> ModuleView:
        """`apply_to`, with the plan that the module follows."""
        if self.origin is not None:
            masks = self.origin.masks if masks is None else masks
            check = check or self.origin.example()
        try:
            small = apply_plan(self, model, masks, check)
            granularity = "dims" if self.origin is None else self.origin.granularity
            return ModuleView(small, self._noted(model, small), granularity)
        except ModuleViewError as refusal:
            if self.origin is None or check is None or not refusal.reason:
                raise
            zeroed = with_masks(model, masks or {}, self.aliases)
            for granularity, plan in self.origin.coarser(zeroed, check):
                try:
                    small = apply_plan(plan, zeroed, check=check)
                except ModuleViewError:
                    continue
                return ModuleView(small, plan._noted(model, small), granularity, refusal.reason)
            raise

    def _noted(self, model: nn.Module, small: nn.Module) -> Plan:
        """The data, with the numbers that had to follow in ``small``."""
        return replace(self, attributes=changed_attributes(model, small), origin=None)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as the data it is."""
        return Plan.from_json, (self.to_json(),)


@dataclass(frozen=True)
class ModuleView:
    """A smaller module and the plan it follows, its numbers written down.

    ``granularity``: how finely attention is cut in the module ("dims", "even", "heads" or "units"), and ``refusal`` why
    no finer: empty where it is as fine as the plan it was made for.
    """

    module: nn.Module
    plan: Plan
    granularity: str = "dims"
    refusal: str = ""
