"""What `shrink` did and what it left, with reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import fx, nn

from passes.analysis.coupling import Coupling
from passes.analysis.transfer import unknown_operators
from passes.channels import Axis
from passes.graph import get_attribute
from passes.verify import Agreement


@dataclass(frozen=True)
class ShrinkReport:
    """Parameter counts, the agreement of the two graphs, and why axes kept dead indices."""

    parameters_before: int
    parameters_after: int
    agreement: Agreement | None
    pinned: Mapping[str, str] = field(default_factory=dict)  # parameter[dim] with dead indices -> reason
    unknown_operators: tuple[str, ...] = ()

    def __str__(self) -> str:
        share = 1 - self.parameters_after / max(1, self.parameters_before)
        lines = [f"parameters {self.parameters_before:,} → {self.parameters_after:,} (−{share:.1%})"]
        if self.agreement is not None:
            lines.append(f"verified: {self.agreement}")
        lines += [f"kept although zero: {name}: {reason}" for name, reason in self.pinned.items()]
        if self.unknown_operators:
            lines.append("operators treated conservatively: " + ", ".join(self.unknown_operators))
        return "\n".join(lines)


def count_parameters(graph_module: fx.GraphModule) -> int:
    """Entries of the parameters and buffers a graph reads, each counted once."""
    names = {str(n.target) for n in graph_module.graph.nodes if n.op == "get_attr"}
    return sum(get_attribute(graph_module, name).numel() for name in names)


@dataclass(frozen=True)
class Before:
    """What a report needs of the masked graph, which need not live as long: counts, and which lines are all zero."""

    parameters: int
    unknown_operators: tuple[str, ...]
    zeros: Mapping[Axis, torch.Tensor]  # (size,) bool, of every 2-D parameter's dims


def summarise(masked: fx.GraphModule) -> Before:
    zeros = {}
    for name in dict.fromkeys(str(n.target) for n in masked.graph.nodes if n.op == "get_attr"):
        weight = get_attribute(masked, name)
        if weight.dim() == 2 and isinstance(weight, nn.Parameter):
            pattern = (weight != 0).view(torch.uint8)
            for dim in range(2):
                zeros[Axis(f"@{name}", dim)] = (pattern.amax(1 - dim) == 0).cpu()
    return Before(count_parameters(masked), tuple(unknown_operators(masked.graph)), zeros)


def build_report(
    before: Before, small: fx.GraphModule, coupling: Coupling, agreement: Agreement | None
) -> ShrinkReport:
    pinned = {}
    for found, zero in before.zeros.items():
        kept = coupling.keep_axis(found)
        if kept is None:
            continue
        empty = zero & kept
        if bool(empty.any()):
            name = f"{found.value.removeprefix('@')}[{found.dim}]"
            pinned[f"{name} ({int(empty.sum())} of {len(empty)})"] = _why_kept(coupling, found)
    return ShrinkReport(before.parameters, count_parameters(small), agreement, pinned, before.unknown_operators)


def _why_kept(coupling: Coupling, found: Axis) -> str:
    """Why an axis keeps an index that is zero in this parameter."""
    reason = coupling.reason(found)
    if reason is not None:
        return f"pinned: {reason}"
    number = coupling.class_of[found]
    if number in coupling.rounded:
        return "rounded up to a multiple, as asked for"
    for grid in coupling.ties.grids:
        if number == coupling.class_of[grid.flat]:
            ragged = coupling.class_of[grid.parts[-1]] in coupling.rows
            return (
                "padding: every head keeps as many dims as the largest of its layer"
                if ragged
                else "needed: all heads of a layer keep the same dims here"
            )
    return "needed: another value on the same axis, or another use of the weight, is not zero there"
