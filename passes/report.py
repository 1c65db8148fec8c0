"""What `shrink` did and what it left, with reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import fx, nn

from passes.analysis.coupling.solver import Coupling
from passes.analysis.coupling.why_kept import why_kept
from passes.ir.graph import get_attribute
from passes.ops.facts import Axis
from passes.ops.table import unknown_operators
from passes.verify.compare import Agreement


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
        lines = [f"parameters {self.parameters_before:,} → {self.parameters_after:,} (−{share:.1%}) in the graph view"]
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
    zeros: Mapping[Axis, torch.Tensor]  # (size,) bool, of the dims of every parameter that has two or more


def summarise(masked: fx.GraphModule) -> Before:
    zeros = {}
    for name in dict.fromkeys(str(n.target) for n in masked.graph.nodes if n.op == "get_attr"):
        weight = get_attribute(masked, name)
        if weight.dim() >= 2 and isinstance(weight, nn.Parameter):
            pattern = (weight != 0).view(torch.uint8)
            for dim in range(weight.dim()):
                others = [d for d in range(weight.dim()) if d != dim]
                zeros[Axis(f"@{name}", dim)] = (pattern.amax(others) == 0).cpu()
    return Before(count_parameters(masked), tuple(unknown_operators(masked.graph)), zeros)


def build_report(
    before: Before, small: fx.GraphModule, coupling: Coupling, agreement: Agreement | None
) -> ShrinkReport:
    pinned = {}
    left = {str(n.target) for n in small.graph.nodes if n.op == "get_attr"}
    for found, zero in before.zeros.items():
        kept = coupling.keep_axis(found)
        name = found.value.removeprefix("@")
        if kept is None or name not in left or get_attribute(small, name).shape[found.dim] != int(kept.sum()):
            continue  # it went with a sublayer that died
        empty = zero & kept
        if bool(empty.any()):
            reasons = dict.fromkeys(why_kept(coupling, coupling.class_of[found], empty))
            pinned[f"{name}[{found.dim}] ({int(empty.sum())} of {len(empty)})"] = "; ".join(reasons)
    return ShrinkReport(before.parameters, count_parameters(small), agreement, pinned, before.unknown_operators)
