"""The plan as users hold it: the data, and what it takes to apply it to a module of theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from torch import nn

from passes.plan.apply import apply_plan, with_masks
from passes.plan.check import Check
from passes.plan.data import Masks, PlanData
from passes.plan.errors import ModuleViewError
from passes.plan.numbers import changed_attributes
from passes.plan.refine import refine
from passes.plan.surplus import surplus

# (model with its zeros, what to reproduce) -> coarser and coarser plans for it, with the names of their granularities.
CoarserPlans: TypeAlias = Callable[[nn.Module, Check], Iterator[tuple[str, "Plan"]]]


@dataclass(frozen=True)
class Origin:
    """What a plan that comes from `passes.shrink` remembers of it, in memory only.

    ``masks``: those that shrink was given, under the names the graph uses. ``granularity``: how finely it cut
    attention. ``sizes``: {parameter of the small graph: its entries}. ``example``: the traced example and what the
    small graph makes of it. ``coarser``: plans to fall back on where a forward cannot follow.
    """

    masks: Masks
    granularity: str
    sizes: Mapping[str, int]
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
        """`apply_to`, with the plan that the module follows, and why it holds more than the graph where it does."""
        view = self._view(model, masks, check)
        if self.origin is None:
            return view
        return replace(view, surplus=surplus(view.module, self.origin.sizes, self.aliases))

    def _view(self, model: nn.Module, masks: Masks | None, check: Check | None) -> ModuleView:
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
            if isinstance(check, Check):
                check = check.that(zeroed)
            for granularity, plan in self._plans(zeroed, check):
                try:
                    small = apply_plan(plan, zeroed, check=check)
                except ModuleViewError:
                    continue
                plan = plan._noted(model, small)
                reason = "" if granularity == self.origin.granularity else refusal.reason
                return self._refined(ModuleView(small, plan, granularity, reason), zeroed, check)
            raise

    def _plans(self, zeroed: nn.Module, check: Check) -> Iterator[tuple[str, Plan]]:
        """This one and coarser ones, with the names of their granularities."""
        assert self.origin is not None
        yield self.origin.granularity, self
        yield from self.origin.coarser(zeroed, check)

    def _refined(self, view: ModuleView, zeroed: nn.Module, check: Check) -> ModuleView:
        """A coarser view, its linear layers as small as this plan says, where the forward goes through the layers."""
        plan = refine(view.plan, self, zeroed)
        if not plan.spreads:
            return view
        try:
            return replace(view, module=apply_plan(plan, zeroed, check=check), plan=plan)
        except ModuleViewError:  # it reads weights where it should call layers
            return view

    def _noted(self, model: nn.Module, small: nn.Module) -> Plan:
        """The data, with the numbers that had to follow in ``small``."""
        return replace(self, attributes=changed_attributes(model, small), origin=None)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as the data it is."""
        return Plan.from_json, (self.to_json(),)


@dataclass(frozen=True)
class ModuleView:
    """A smaller module and the plan it follows, its numbers written down.

    ``granularity``: how finely attention is cut where the module's forward computes it ("dims", "even", "heads" or
    "units"), and ``refusal`` why no finer: empty where it is as fine as the plan it was made for. ``surplus``: how many
    more parameters the module holds than the graph, and why; empty where it is none.
    """

    module: nn.Module
    plan: Plan
    granularity: str = "dims"
    refusal: str = ""
    surplus: str = ""

    def __str__(self) -> str:
        held = f"{sum(parameter.numel() for parameter in self.module.parameters()):,} parameters"
        said = [f"module view: {held}" + (f", {self.surplus}" if self.surplus else "")]
        if self.plan.spreads:
            said.append(
                f'Attention is computed as if cut by "{self.granularity}", with zeros where layers hold nothing'
            )
        return ". ".join([*said, self.refusal] if self.refusal else said)
