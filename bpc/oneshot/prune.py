"""`prune_once`: a model, unlabelled examples and a target become a smaller dense model, without training.

trace → what each sublayer may lose (ladders) → how much each loses (search) → refit the rest (repair) → compile
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

import passes
from bpc.costs import Costs, Widths
from bpc.oneshot.batches import Batch, CalibrationError, calibration_batches, examples_of, trace_example
from bpc.oneshot.costs import counted, measured, measured_speedup, probes_of
from bpc.oneshot.divergence import mean_divergence
from bpc.oneshot.estimate import compared_batches, describe_estimate, probe_batches
from bpc.oneshot.heads import Heads, find_heads
from bpc.oneshot.ladder import Ladder
from bpc.oneshot.ladders import Narrow, Setting, measure_ladders, measurements_of
from bpc.oneshot.masks import masks_of
from bpc.oneshot.progress import PhaseProgress
from bpc.oneshot.repair import repair
from bpc.oneshot.report import Choice, OneShotReport
from bpc.oneshot.resume import Saved
from bpc.oneshot.search import Selection, search
from bpc.oneshot.stream import Runner, Timeline
from bpc.oneshot.sublayers import Sublayer, find_sublayers
from bpc.oneshot.target import Target, TargetError
from bpc.wrapped import plain_model
from passes.ir.graph import get_attribute
from passes.plan.copies import full_copy
from passes.rewrite.turn_heads import Turn, TurnHeads
from passes.structure.roles import Roles, find_roles

if TYPE_CHECKING:
    from bpc.dense import DenseModel

_ROUNDS = 3  # of measuring what was chosen and choosing again, where a speed-up is wanted
_CLOSE = 0.02  # of the wanted speed-up: near enough


def prune_once(
    model: nn.Module,
    data: Iterable[Any],
    target: Target | float,
    *,
    tokenizer: Any = None,
    samples: int = 512,
    batch_size: int = 32,
    max_length: int = 128,
    effort: float = 1.0,
    ridge: float = 1e-2,
    multiple: int = 8,
    narrow: Narrow = "no",
    protect: Sequence[str] = (),
    verify: bool = True,
    progress: bool | PhaseProgress = True,
    state: str | Path | None = None,
) -> DenseModel:
    """Prune ``model`` to ``target`` in minutes, from examples without labels; it is left as it is.

    Heads and FFN dims are ranked by what the layer's output loses on the data when the others take over as well as
    they can (`bpc.oneshot.surgeon`); how many each layer keeps follows from what its loss does to the model's outputs;
    the weights that remain are refitted layer by layer, so that the layers' outputs stay (`passes.rewrite.refit`).
    The result is compiled exactly: it computes what the refitted model with zeros computes.

    Args:
        data: texts, rows of a data set or batches; see `bpc.oneshot.batches.calibration_batches`, which also explains
            ``samples``, ``batch_size`` and ``max_length``. A few hundred examples of what the model will see are
            enough.
        target: a number (how many times as fast) or a `Target`.
        tokenizer: where ``data`` are texts, or rows to pad.
        effort: how much is spent on measuring what each layer's loss does to the outputs; 2 takes twice as long.
        ridge: how far refitted weights stay near the old ones; see `passes.rewrite.refit`.
        multiple: FFN dims, and dims inside heads, are kept in multiples of this (kernels run best on 8 or 16).
        narrow: whether the heads of a layer may keep fewer dims, in a basis of their own (`bpc.oneshot.bases`).
            "alike": values as many as queries and keys, which the module of most architectures can follow. "freely":
            each as many as they need; the graph and ONNX files are small then, the module keeps zeros. Where positions
            are rotated into queries and keys, only values get narrower, so "alike" changes nothing there.
        protect: names of weights (globs) whose layer is left alone.
        verify: compare the small model with the refitted one; see `passes.shrink`.
        progress: show it on stderr.
        state: a directory that what was measured and refitted is kept in, layer by layer; the same call goes on from
            there after an interruption.

    Returns a `bpc.DenseModel`, whose ``one_shot`` is a `OneShotReport`. Raises `CalibrationError` for data that do not
    fit, `TargetError` for a target that cannot be met, `passes.TraceError` for a model that cannot be traced,
    ValueError for one with adapters (LoRA).
    """
    from bpc.dense import DenseModel

    if not isinstance(model, nn.Module):
        raise TypeError(f"prune_once takes a loaded model (an nn.Module), not a {type(model).__name__}: {model!r}")
    target = Target.of(target)
    shown = progress if isinstance(progress, PhaseProgress) else PhaseProgress(enabled=progress)
    pruned = full_copy(plain_model(model)).cpu().eval()
    batches = calibration_batches(
        pruned, data, tokenizer, samples=samples, batch_size=batch_size, max_length=max_length
    )
    with shown.phase("tracing"):
        graph = passes.trace(pruned, trace_example(pruned, batches[0]))
    roles = find_roles(graph)
    sublayers = _prunable(graph, roles, protect)
    batches = [_as_traced(graph, batch) for batch in batches]
    heads = {} if narrow == "no" else find_heads(graph, sublayers, roles, batches[0])
    if narrow == "alike":
        heads = {name: own for name, own in heads.items() if own.value is not None and own.key is not None}
    setting = Setting(
        ridge=ridge,
        probes=probe_batches(graph, sublayers, batches, effort, heads),
        multi_label=getattr(getattr(model, "config", None), "problem_type", None) == "multi_label_classification",
        narrow=narrow,
    )
    saved = Saved(state, graph, batches, setting)
    shown.say(describe_estimate(graph, sublayers, batches, setting, target, heads))
    problem = _Problem(graph, sublayers, heads, target, multiple, alike=narrow != "freely")
    costs, budget = problem.costs(shown)
    if budget >= costs.total():
        shown.say(
            f"nothing to remove: the original costs {costs.total():.4g} {costs.unit}, {target} allows {budget:.4g}"
        )
    steps = sum(
        len(batches) * (len(s.nodes) + (s.name in heads))
        + setting.probes * measurements_of(s, setting, heads.get(s.name))
        for s in sublayers
    )
    with shown.phase("measuring layers", steps) as tick:
        ladders, shared = measure_ladders(
            graph, sublayers, batches, setting, heads=heads, known=saved.ladders(), done=saved.add_ladder, tick=tick
        )
    selection = problem.search(ladders, costs, budget)
    speedup = None
    if target.speedup is not None:
        with shown.phase("checking the speed-up"):
            selection, speedup = problem.until_measured(ladders, costs, selection)
    turns = [turn for name, width in selection.widths.items() for turn in _turns(heads[name], ladders[name], width)]
    _write(graph, TurnHeads(turns).numbers(graph))
    with shown.phase("repairing", 2 * len(batches) * len(sublayers)) as tick:
        repaired = repair(
            graph,
            sublayers,
            batches,
            selection,
            ladders,
            setting,
            heads=heads,
            shared=shared,
            known=saved.repaired(selection),
            done=partial(saved.add_repaired, selection),
            tick=tick,
        )
    expected = costs.total(selection.kept, selection.widths)
    with shown.phase("comparing"):
        original = Runner(graph, Timeline(graph))
        compared = batches[: compared_batches(graph, batches)]
        distance = mean_divergence(original, Runner(repaired, original.timeline), compared, setting.multi_label)
    with shown.phase("compiling"):
        # The graph reads the weights of the copy of the model: both get the refitted ones, and are shrunk together.
        _write(graph, dict(repaired.named_parameters()))
        dense = DenseModel.from_shrink(passes.shrink(graph, problem.masks(ladders, selection), verify=verify), pruned)
    saved.drop_repaired()
    dense.one_shot = OneShotReport(
        target=target,
        choices=tuple(_choice(s, ladders[s.name], selection) for s in sublayers),
        examples=sum(examples_of(batch) for batch in compared),
        divergence=distance,
        speedup=speedup,
        expected_cost=expected,
        original_cost=costs.total(),
        unit=costs.unit,
        seconds=dict(shown.seconds),
    )
    return dense


def _prunable(graph: fx.GraphModule, roles: Roles, protect: Sequence[str]) -> tuple[Sublayer, ...]:
    found = find_sublayers(graph, roles)
    for pattern in protect:
        if not any(fnmatchcase(name, pattern) for s in found for name in s.parts):
            raise TargetError(f"protect: {pattern!r} matches no weight of an attention or feed-forward network")
    left = tuple(s for s in found if not any(fnmatchcase(name, p) for name in s.parts for p in protect))
    if not left:
        raise TargetError("no attention or feed-forward network was found in the graph, so there is nothing to prune")
    return left


def _as_traced(graph: fx.GraphModule, batch: Batch) -> Batch:
    """The batch with the example's constants (``use_cache=False``) and nothing the graph does not take."""
    from passes.ir.info import trace_info

    example = trace_info(graph).kwargs
    constants = {name: value for name, value in example.items() if not isinstance(value, Tensor)}
    missing = example.keys() - constants.keys() - batch.keys()
    if missing:
        raise CalibrationError(f"the batches do not all have the same inputs: one lacks {sorted(missing)[0]!r}")
    return {name: batch[name] if name in batch else constants[name] for name in example}


@dataclass(frozen=True)
class _Problem:
    """What may go, and what is asked for."""

    graph: fx.GraphModule
    sublayers: tuple[Sublayer, ...]
    heads: Mapping[str, Heads]
    target: Target
    multiple: int
    alike: bool

    def costs(self, shown: PhaseProgress) -> tuple[Costs, float]:
        """Costs and budget; of a speed-up from times that are measured, unless this machine remembers them."""
        if self.target.speedup is None:
            return counted(self.graph, self.sublayers, self.target, self.heads)
        with shown.phase("timing", len(probes_of(self.sublayers, self.heads, self.alike))) as tick:
            return measured(self.graph, self.sublayers, self.heads, self.target, self.alike, tick=tick)

    def search(self, ladders: Mapping[str, Ladder], costs: Costs, budget: float) -> Selection:
        return search(self.sublayers, ladders, costs, budget, multiple=self.multiple, alike=self.alike)

    def masks(self, ladders: Mapping[str, Ladder], selection: Selection) -> dict[str, Tensor]:
        return masks_of(self.graph, self.sublayers, ladders, selection, self.heads)

    def until_measured(
        self, ladders: Mapping[str, Ladder], costs: Costs, selection: Selection
    ) -> tuple[Selection, float]:
        """Measure what was chosen, and choose again by a budget moved by what was missed, until the target is met.

        The weights' values do not matter to the speed, so that nothing needs to be refitted for this.
        """
        wanted = self.target.speedup
        assert wanted is not None
        budget, best = costs.total() / wanted, (selection, 1.0)
        for _ in range(_ROUNDS):
            masks = self.masks(ladders, selection)
            if not masks:
                return selection, 1.0
            speedup = measured_speedup(self.graph, masks, self.target)
            if abs(speedup / wanted - 1) < abs(best[1] / wanted - 1):
                best = selection, speedup
            if abs(speedup / wanted - 1) <= _CLOSE:
                break
            # What was spent more (or less) than expected is taken off the budget of the next choice.
            budget -= costs.total() * (1 / speedup - 1 / wanted)
            try:
                chosen = self.search(ladders, costs, budget)
            except TargetError:
                break
            if chosen == selection:
                break
            selection = chosen
        return best


def _turns(heads: Heads, ladder: Ladder, width: Widths) -> list[Turn]:
    """Heads in the bases whose first dims stay, where any go."""
    values = ladder.values.basis if ladder.values is not None and width.values < width.dims else None
    keys = ladder.keys.basis if ladder.keys is not None and width.keys < width.dims else None
    return heads.turns(values, keys)


@torch.no_grad()
def _write(graph: fx.GraphModule, numbers: Mapping[str, Tensor]) -> None:
    for name, value in numbers.items():
        stored = get_attribute(graph, name)
        if stored is not value:
            stored.copy_(value)


def _choice(sublayer: Sublayer, ladder: Ladder, selection: Selection) -> Choice:
    kept, width = selection.kept[sublayer.name], selection.widths.get(sublayer.name)
    loss = float(ladder.loss([kept])[0])
    if width is not None:
        pairs = ((ladder.values, width.values), (ladder.keys, width.keys))
        loss += sum(measured.loss(dims) for measured, dims in pairs if measured) * kept / sublayer.count
    narrowed = {} if width is None else {"values": width.values, "keys": width.keys}
    return Choice(sublayer.name, sublayer.weight, sublayer.unit, kept, sublayer.count, loss, **narrowed)
