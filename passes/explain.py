"""What masks do to each attention head and FFN dim, and why: dead, constant, live or pinned.

dead       goes: nothing that lives reads it
constant   goes: it holds one number whatever the input, which folds into the bias of the linear that reads it
live       stays
pinned     stays although nothing needs it, for the reason given
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import fx

from passes.analysis.analysis import analyse
from passes.analysis.constants import Constants, WeightReader
from passes.analysis.coupling.solver import Coupling
from passes.analysis.liveness import Liveness
from passes.frontend.bake import BakeWeights
from passes.ir.manager import PassManager
from passes.ir.session import exclusive
from passes.ir.sizes import shape_of
from passes.masks import MaskSource, resolve_masks
from passes.ops.facts import Axis, any_over
from passes.ops.linear_form import LinearForm, linear_form
from passes.structure.attention_cores import find_attention_cores
from passes.structure.blocks import Block
from passes.structure.role import Family, Part
from passes.structure.roles import find_roles

State = Literal["dead", "constant", "live", "pinned"]


@dataclass(frozen=True)
class Unit:
    """One head or FFN dim. ``kept`` of its ``size`` channels stay in the small model."""

    index: int
    state: State
    reason: str
    kept: int
    size: int


@dataclass(frozen=True, repr=False)
class BlockExplanation:
    """The heads of one attention, or the dims of one FFN. ``weight``: the linear that reads them."""

    name: str
    kind: Literal["head", "dim"]
    weight: str
    units: tuple[Unit, ...]

    def count(self, state: State) -> int:
        return sum(unit.state == state for unit in self.units)

    def __repr__(self) -> str:
        return f"BlockExplanation({self.name}, {len(self.units)} {self.kind}s, {self.count('live')} live)"

    def __str__(self) -> str:
        tally = ", ".join(f"{n} {s}" for s in ("live", "constant", "dead", "pinned") if (n := self.count(s)))
        lines = [f"{self.name} ({self.weight}): {len(self.units)} {self.kind}s: {tally}"]
        groups: dict[tuple[State, str], list[int]] = {}
        for unit in self.units:
            groups.setdefault((unit.state, unit.reason), []).append(unit.index)
        for (state, reason), indices in groups.items():
            plural = "s" if len(indices) > 1 else ""
            lines.append(f"  {self.kind}{plural} {_ranges(indices)}: {state}" + (f" — {reason}" if reason else ""))
        return "\n".join(lines)


@dataclass(frozen=True, repr=False)
class Explanation:
    """Every block of the model whose output linear multiplies by a parameter; ``skipped`` names the others."""

    blocks: tuple[BlockExplanation, ...]
    skipped: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Explanation({len(self.blocks)} blocks, {len(self.skipped)} skipped)"

    def to_data(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return "\n".join(map(str, self.blocks))


@exclusive
def explain(graph_module: fx.GraphModule, masks: MaskSource = None, *, read: WeightReader | None = None) -> Explanation:
    """Say of every head and FFN dim what becomes of it. Arguments as for `passes.plan_shrink`; changes nothing."""
    graph_module = PassManager((BakeWeights(),)).run(graph_module).graph_module
    roles = find_roles(graph_module)
    cores = find_attention_cores(graph_module.graph)
    queries = {f"attention.{i}": core.queries[0] for i, core in enumerate(cores)}
    with torch.no_grad():
        analysis = analyse(graph_module, resolve_masks(graph_module, masks), read)
        view = _View(analysis.constants, analysis.liveness, analysis.least)
        blocks, skipped = [], []
        for block in roles.blocks:
            found = _explain_block(view, block, queries.get(block.name))
            if found is None:
                skipped.append(block.name)
            else:
                blocks.append(found)
    return Explanation(tuple(blocks), tuple(skipped))


@dataclass(frozen=True)
class _View:
    constants: Constants
    liveness: Liveness
    coupling: Coupling

    def columns(self, form: LinearForm) -> tuple[torch.Tensor, ...]:
        """Of the input channels of a weight, over all its uses, (in_features,): live, folds, its number, kept."""
        uses = self.constants.uses[form.weight_name]
        live = torch.stack([_over_data(self.liveness.of(use.input)) for use in uses]).any(0)
        folds = self.constants.folds(form)
        _, value = self.constants.folded_constants(form)
        kept = self.coupling.keep_axis(Axis(f"@{form.weight_name}", form.in_dim))
        return live, folds, value, torch.ones_like(live) if kept is None else kept

    def pin(self, form: LinearForm) -> str:
        """Why dead channels of a weight's input stay."""
        flat = Axis(f"@{form.weight_name}", form.in_dim)
        number = self.coupling.class_of.get(flat)
        related = [number, *self._grid_classes(number)]
        reasons = (self.coupling.pinned[n] for n in related if n is not None and n in self.coupling.pinned)
        return next(reasons, "it is laid out together with channels that live")

    def _grid_classes(self, number: int | None) -> Iterator[int]:
        for grid in self.coupling.ties.grids:
            if self.coupling.class_of[grid.flat] == number:
                yield from (self.coupling.class_of[part] for part in grid.parts)


def _over_data(fact: torch.Tensor) -> torch.Tensor:
    return any_over(fact, range(fact.dim() - 1)).reshape(-1)


def _explain_block(view: _View, block: Block, query: fx.Node | None) -> BlockExplanation | None:
    attention = block.family is Family.ATTENTION
    forms = [linear_form(node) for node in block.parts[Part.OUTPUT if attention else Part.DOWN]]
    form = forms[0] if forms else None
    if form is None or form.weight_name not in view.constants.uses:
        return None
    features = shape_of(form.input)[-1]
    size = block.value_dim if attention else 1
    if size is None or features % size:
        return None
    live, folds, value, kept = (t.view(-1, size) for t in view.columns(form))
    attends = _attends(view.liveness, query, len(live)) if attention else None
    name = "the output projection" if attention else form.weight_name
    bias = "the output bias" if attention else f"the bias of {form.weight_name}"
    units = []
    for index in range(len(live)):
        going = not bool(live[index].any())
        state, reason = _fate(folds[index], value[index], name, bias) if going else ("live", "")
        stays = int(kept[index].sum())
        if going and stays:
            state, reason = "pinned", f"{state} ({reason}), but {view.pin(form)}"
        elif not going and attention:
            reason = _partly(live[index], stays, attends is not None and not bool(attends[index]))
        units.append(Unit(index, state, reason, stays, size))
    return BlockExplanation(block.name, "head" if attention else "dim", form.weight_name, tuple(units))


def _fate(folds: torch.Tensor, value: torch.Tensor, reader: str, bias: str) -> tuple[State, str]:
    """Of a head or dim without live channels."""
    fixed, size = int(folds.sum()), len(folds)
    what = "it is" if size == 1 else f"all {size} value channels are"
    if fixed < size:
        rest = (
            f"{reader} ignores it"
            if fixed == 0
            else f"{fixed} of {size} value channels fold, {reader} ignores the rest"
        )
        return "dead", rest
    if bool((value == 0).all()):
        return "dead", f"{what} always 0"
    return "constant", f"{what} constant, folded into {bias}"


def _partly(live: torch.Tensor, kept: int, uniform: bool) -> str:
    """What is left of a live head."""
    parts = ["q/k empty: attends uniformly"] if uniform else []
    if not bool(live.all()):
        count = int(live.sum())
        padded = f", padded to {kept}" if kept > count else ""
        parts.append(f"{count} of {len(live)} value channels live{padded}")
    return "; ".join(parts)


def _attends(liveness: Liveness, query: fx.Node | None, heads: int) -> torch.Tensor | None:
    """(heads,) bool: some query channel of the head reaches the scores; None where the shapes do not show heads."""
    if query is None or len(shape_of(query)) < 4 or shape_of(query)[-3] != heads:
        return None
    live = liveness.of(query)
    return any_over(live, [d for d in range(live.dim()) if d != live.dim() - 3]).reshape(-1)


def _ranges(indices: list[int]) -> str:
    """[0, 1, 2, 5] -> "0-2, 5"."""
    spans: list[list[int]] = []
    for index in indices:
        if spans and index == spans[-1][1] + 1:
            spans[-1][1] = index
        else:
            spans.append([index, index])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
