"""The steps of pruning without training, wherever the model lies: cost → ladders → choice → repair → comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial

from torch import Tensor, fx, nn

from bpc.costs import Costs
from bpc.oneshot.batches import Batch, examples_of
from bpc.oneshot.costs import counted, measured, probes_of
from bpc.oneshot.divergence import mean_divergence
from bpc.oneshot.estimate import compared_batches, describe_estimate, probe_batches
from bpc.oneshot.heads import Heads
from bpc.oneshot.ladder import Ladder
from bpc.oneshot.ladders import Narrow, Setting, measure_ladders, measurements_of
from bpc.oneshot.masks import masks_of
from bpc.oneshot.progress import PhaseProgress
from bpc.oneshot.repair import Numbers, repair
from bpc.oneshot.report import Choice, OneShotReport
from bpc.oneshot.resume import Saved
from bpc.oneshot.search import Selection, search
from bpc.oneshot.stream import Original
from bpc.oneshot.sublayers import Sublayer, find_sublayers
from bpc.oneshot.target import Target, TargetError
from passes.rewrite.refit import Moments
from passes.structure.roles import Roles

Ladders = Mapping[str, Ladder]


@dataclass(frozen=True)
class Problem:
    """What may go, what is asked for, and what it is measured on."""

    original: Original
    sublayers: tuple[Sublayer, ...]
    heads: Mapping[str, Heads]
    batches: Sequence[Batch]
    setting: Setting
    target: Target
    multiple: int
    saved: Saved
    shown: PhaseProgress
    prices: Costs | None = None  # seconds, of a model that this one was pruned from

    @property
    def _alike(self) -> bool:
        return self.setting.narrow != "freely"

    def costs(self) -> tuple[Costs, float]:
        """Costs and budget, after a line on how long all will take; of a speed-up from times that are measured, unless
        this machine remembers them."""
        graph = self.original.graph
        args = self.original, self.sublayers, self.batches, self.setting, self.target, self.heads
        self.shown.say(describe_estimate(*args))
        if self.target.speedup is None:
            costs, budget = counted(graph, self.sublayers, self.target, self.heads)
        elif self.prices is not None:
            costs = self.prices.up_to({s.name: s.count for s in self.sublayers})
            budget = costs.total() / self.target.speedup
        else:
            with self.shown.phase("timing", len(probes_of(self.sublayers, self.heads, self._alike))) as tick:
                costs, budget = measured(graph, self.sublayers, self.heads, self.target, self._alike, tick=tick)
        if budget >= costs.total():
            self.shown.say(
                f"nothing to remove: the original costs {costs.total():.4g} {costs.unit}, {self.target} allows "
                f"{budget:.4g}"
            )
        return costs, budget

    def ladders(self) -> tuple[dict[str, Ladder], dict[str, Moments]]:
        """`measure_ladders`, going on from what is kept."""
        steps = sum(
            len(self.batches) * (len(s.nodes) + (s.name in self.heads))
            + self.setting.probes * measurements_of(s, self.setting, self.heads.get(s.name))
            for s in self.sublayers
        )
        with self.shown.phase("measuring layers", steps) as tick:
            return measure_ladders(
                self.original,
                self.sublayers,
                self.batches,
                self.setting,
                heads=self.heads,
                known=self.saved.ladders(),
                done=self.saved.add_ladder,
                tick=tick,
            )

    def search(self, ladders: Ladders, costs: Costs, budget: float) -> Selection:
        return search(self.sublayers, ladders, costs, budget, multiple=self.multiple, alike=self._alike)

    def masks(self, ladders: Ladders, selection: Selection) -> Mapping[str, Tensor]:
        return masks_of(self.original.graph, self.sublayers, ladders, selection, self.heads)

    def repaired(self, ladders: Ladders, shared: Mapping[str, Moments], selection: Selection) -> Numbers:
        """`repair`, going on from what is kept."""
        with self.shown.phase("repairing", 2 * len(self.batches) * len(self.sublayers)) as tick:
            return repair(
                self.original,
                self.sublayers,
                self.batches,
                selection,
                ladders,
                self.setting,
                heads=self.heads,
                shared=shared,
                known=self.saved.repaired(selection),
                done=partial(self.saved.add_repaired, selection),
                tick=tick,
            )

    def compared(self, changed: Numbers) -> tuple[float, int]:
        """The divergence of the model with other numbers from the original, and on how many examples."""
        batches = self.batches[: compared_batches(self.original.graph, self.batches)]
        with self.shown.phase("comparing"):
            runners = self.original.runner(), self.original.runner(changed)
            distance = mean_divergence(*runners, batches, self.setting.multi_label)
        return distance, sum(examples_of(batch) for batch in batches)

    def report(
        self,
        ladders: Ladders,
        selection: Selection,
        costs: Costs,
        compared: tuple[float, int],
        speedup: float | None = None,
    ) -> OneShotReport:
        """What was chosen, and what it cost until now."""
        return OneShotReport(
            target=self.target,
            choices=tuple(_choice(s, ladders[s.name], selection) for s in self.sublayers),
            examples=compared[1],
            divergence=compared[0],
            speedup=speedup,
            expected_cost=costs.total(selection.kept, selection.widths),
            original_cost=costs.total(),
            unit=costs.unit,
            prices=costs if self.target.speedup is not None else None,
            seconds=dict(self.shown.seconds),
        )


def prunable(graph: fx.GraphModule, roles: Roles, protect: Sequence[str]) -> tuple[Sublayer, ...]:
    """The sublayers without those that ``protect`` (globs) names a weight of. Raises `TargetError` for none, and for a
    glob of nothing."""
    found = find_sublayers(graph, roles)
    for pattern in protect:
        if not any(fnmatchcase(name, pattern) for s in found for name in s.parts):
            raise TargetError(f"protect: {pattern!r} matches no weight of an attention or feed-forward network")
    left = tuple(s for s in found if not any(fnmatchcase(name, p) for name in s.parts for p in protect))
    if not left:
        raise TargetError("no attention or feed-forward network was found in the graph, so there is nothing to prune")
    return left


def setting_of(
    model: nn.Module,
    graph: fx.GraphModule,
    sublayers: Sequence[Sublayer],
    batches: Sequence[Batch],
    *,
    effort: float,
    ridge: float,
    narrow: Narrow = "no",
    heads: Mapping[str, Heads] | None = None,
) -> Setting:
    """What `bpc.prune_once` is told, as the sweeps need it."""
    return Setting(
        ridge=ridge,
        probes=probe_batches(graph, sublayers, batches, effort, heads),
        multi_label=getattr(getattr(model, "config", None), "problem_type", None) == "multi_label_classification",
        narrow=narrow,
    )


def _choice(sublayer: Sublayer, ladder: Ladder, selection: Selection) -> Choice:
    kept, width = selection.kept[sublayer.name], selection.widths.get(sublayer.name)
    loss = float(ladder.loss([kept])[0])
    if width is not None:
        pairs = ((ladder.values, width.values), (ladder.keys, width.keys))
        loss += sum(measured.loss(dims) for measured, dims in pairs if measured) * kept / sublayer.count
    narrowed = {} if width is None else {"values": width.values, "keys": width.keys}
    return Choice(sublayer.name, sublayer.weight, sublayer.unit, kept, sublayer.count, loss, **narrowed)
