"""What `shrink` did and what it left, with reasons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape

import torch
from torch import fx, nn

from passes.analysis.analysis import Analysis
from passes.analysis.coupling.why_kept import why_kept
from passes.ir.graph import get_attribute
from passes.ops.facts import Axis
from passes.ops.table import unknown_operators
from passes.verify.compare import Agreement

WORTH_A_WORD = 0.01  # share of scattered zeros from which a report mentions them


@dataclass(frozen=True)
class Kept:
    """Rows (dim 0) or columns of a parameter that stay although they are zero: ``count`` of ``size``, and why."""

    parameter: str
    dim: int
    count: int
    size: int
    reason: str

    @property
    def place(self) -> str:
        return f"{self.parameter}[{self.dim}] ({self.count} of {self.size})"


@dataclass(frozen=True)
class Kind:
    """All that stays although zero for one reason."""

    reason: str
    kept: tuple[Kept, ...]

    @property
    def count(self) -> int:
        """Rows and columns."""
        return sum(kept.count for kept in self.kept)

    @property
    def weights(self) -> int:
        return len({kept.parameter for kept in self.kept})

    def __str__(self) -> str:
        where = self.kept[0].place
        if len(self.kept) > 1:
            plural = "s" if self.weights > 1 else ""
            where = f"{self.count:,} rows and columns of {self.weights} weight{plural}, such as {where}"
        return f"kept although zero: {where}: {self.reason}"


@dataclass(frozen=True)
class Scattered:
    """Zeros of the small graph's matrices that lie in no row or column which is zero as a whole."""

    zeros: int = 0
    entries: int = 0  # of all its matrices

    def __str__(self) -> str:
        share = f"{self.zeros:,} of {self.entries:,} entries of the matrices ({self.zeros / self.entries:.0%})"
        return (
            f"scattered zeros: {share} lie in rows and columns that hold other numbers too; only whole rows and "
            "columns can go"
        )


@dataclass(frozen=True, repr=False)
class ShrinkReport:
    """Parameter counts, the agreement of the two graphs, why axes kept dead indices, and zeros that no cut removes.

    Printed, it says each reason once; `details` has every place.
    """

    parameters_before: int
    parameters_after: int
    agreement: Agreement | None
    kept: tuple[Kept, ...] = ()
    unknown_operators: tuple[str, ...] = ()
    scattered: Scattered = Scattered()

    @property
    def pinned(self) -> dict[str, str]:
        """{parameter[dim] with dead indices: reason}."""
        return {kept.place: kept.reason for kept in self.kept}

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What stays although zero, by reason; what concerns most rows and columns first."""
        groups: dict[str, list[Kept]] = {}
        for kept in self.kept:
            groups.setdefault(kept.reason, []).append(kept)
        found = (Kind(reason, tuple(kept)) for reason, kept in groups.items())
        return tuple(sorted(found, key=lambda kind: -kind.count))

    def details(self) -> str:
        """The report with every place that stays although zero, a line each."""
        places = (f"  {kept.place}: {kept.reason}" for kind in self.kinds for kept in kind.kept)
        return "\n".join((str(self), *places))

    def __str__(self) -> str:
        return "\n".join((self._size(), *self._findings()))

    def __repr__(self) -> str:
        return f"ShrinkReport({self.short()})"

    def short(self) -> str:
        """The two figures that matter most."""
        apart = "not verified" if self.agreement is None else f"apart by {self.agreement.max_abs_diff:.2e}"
        return f"parameters {self.parameters_before:,} → {self.parameters_after:,}, {apart}"

    def _repr_html_(self) -> str:
        """For notebooks."""
        findings = "".join(f"<li>{escape(line)}</li>" for line in self._findings())
        places = "".join(f"<li>{escape(f'{kept.place}: {kept.reason}')}</li>" for kept in self.kept)
        every = f"<details><summary>every place</summary><ul>{places}</ul></details>" if places else ""
        return f"<div><p><b>{escape(self._size())}</b></p><ul>{findings}</ul>{every}</div>"

    def _size(self) -> str:
        share = 1 - self.parameters_after / max(1, self.parameters_before)
        return f"parameters {self.parameters_before:,} → {self.parameters_after:,} (−{share:.1%}) in the graph view"

    def _findings(self) -> Iterator[str]:
        if self.agreement is not None:
            yield f"verified: {self.agreement}"
        yield from map(str, self.kinds)
        if self.notes_scattered:
            yield str(self.scattered)
        if self.unknown_operators:
            yield "operators treated conservatively: " + ", ".join(self.unknown_operators)

    @property
    def notes_scattered(self) -> bool:
        """There are so many scattered zeros that they are worth a word."""
        return self.scattered.zeros > WORTH_A_WORD * self.scattered.entries


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
    zeros = {
        Axis(f"@{name}", dim): zero.cpu()
        for name, weight in _matrices(masked)
        for dim, zero in enumerate(_zero_lines(weight))
    }
    return Before(count_parameters(masked), tuple(unknown_operators(masked.graph)), zeros)


def _matrices(graph_module: fx.GraphModule) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters of two or more dims a graph reads, empty ones apart."""
    for name in dict.fromkeys(str(n.target) for n in graph_module.graph.nodes if n.op == "get_attr"):
        weight = get_attribute(graph_module, name)
        if weight.dim() >= 2 and weight.numel() and isinstance(weight, nn.Parameter):
            yield name, weight


def _zero_lines(weight: torch.Tensor) -> list[torch.Tensor]:
    """Of each dim, (size,) bool: the indices at which everything is zero."""
    pattern = (weight != 0).view(torch.uint8)
    return [pattern.amax([d for d in range(weight.dim()) if d != dim]) == 0 for dim in range(weight.dim())]


def build_report(
    before: Before, small: fx.GraphModule, analysis: Analysis, agreement: Agreement | None
) -> ShrinkReport:
    kept_zeros, coupling = [], analysis.coupling
    left = {str(n.target) for n in small.graph.nodes if n.op == "get_attr"}
    for found, zero in before.zeros.items():
        kept = coupling.keep_axis(found)
        name = found.value.removeprefix("@")
        if kept is None or name not in left or get_attribute(small, name).shape[found.dim] != int(kept.sum()):
            continue  # it went with a sublayer that died
        empty = zero & kept
        if bool(empty.any()):
            reasons = dict.fromkeys(why_kept(coupling, coupling.class_of[found], empty))
            kept_zeros.append(Kept(name, found.dim, int(empty.sum()), len(empty), "; ".join(reasons)))
    return ShrinkReport(
        before.parameters,
        count_parameters(small),
        agreement,
        tuple(kept_zeros),
        tuple(sorted({*before.unknown_operators, *analysis.conservative()})),
        _scattered(small),
    )


def _scattered(small: fx.GraphModule) -> Scattered:
    zeros = entries = 0
    for _, weight in _matrices(small):
        zero = weight == 0
        entries += zero.numel()
        for dim, line in enumerate(_zero_lines(weight)):
            zero &= ~line.view(-1, *[1] * (zero.dim() - 1 - dim))
        zeros += int(zero.sum())
    return Scattered(zeros, entries)
