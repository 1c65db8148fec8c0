"""`prune_once`: a model, unlabelled examples and a target become a smaller dense model, without training.

trace → what each sublayer may lose (ladders) → how much each loses (search) → refit the rest (repair) → compile
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

import passes
from bpc.oneshot.batches import Batch, CalibrationError, calibration_batches, examples_of, trace_example
from bpc.oneshot.costs import columns_mask, counted, measure, probes_of, timed, timing_options
from bpc.oneshot.divergence import mean_divergence
from bpc.oneshot.estimate import compared_batches, describe_estimate, probe_batches
from bpc.oneshot.ladders import Ladder, Setting, counts_of, measure_ladders
from bpc.oneshot.progress import PhaseProgress
from bpc.oneshot.repair import repair
from bpc.oneshot.report import Choice, OneShotReport
from bpc.oneshot.resume import Saved
from bpc.oneshot.search import Costs, search
from bpc.oneshot.stream import Runner, Timeline
from bpc.oneshot.sublayers import Sublayer, find_sublayers
from bpc.oneshot.target import Target, TargetError
from bpc.wrapped import plain_model
from passes.ir.graph import get_attribute
from passes.plan.copies import full_copy
from passes.structure.roles import find_roles

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

    Parameters
    ----------
    data: texts, rows of a data set or batches; see `bpc.oneshot.batches.calibration_batches`, which also explains
        ``samples``, ``batch_size`` and ``max_length``. A few hundred examples of what the model will see are enough.
    target: a number (how many times as fast) or a `Target`.
    tokenizer: where ``data`` are texts, or rows to pad.
    effort: how much is spent on measuring what each layer's loss does to the outputs; 2 takes twice as long.
    ridge: how far refitted weights stay near the old ones; see `passes.rewrite.refit`.
    multiple: FFN dims are kept in multiples of this (kernels run best on 8 or 16).
    protect: names of weights (globs) whose layer is left alone.
    verify: compare the small model with the refitted one; see `passes.shrink`.
    progress: show it on stderr.
    state: a directory that what was measured and refitted is kept in, layer by layer; the same call goes on from there
        after an interruption.

    Returns a `bpc.DenseModel`, whose ``one_shot`` is a `OneShotReport`. Raises `CalibrationError` for data that do not
    fit, `TargetError` for a target that cannot be met, `passes.TraceError` for a model that cannot be traced,
    ValueError for one with adapters (LoRA).
    """
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
    sublayers = _prunable(graph, protect)
    batches = [_as_traced(graph, batch) for batch in batches]
    setting = Setting(
        ridge=ridge,
        probes=probe_batches(graph, sublayers, batches, effort),
        multi_label=getattr(getattr(model, "config", None), "problem_type", None) == "multi_label_classification",
    )
    saved = Saved(state, graph, batches, setting)
    shown.say(describe_estimate(graph, sublayers, batches, setting, target))
    costs, budget = _costs(graph, sublayers, target, saved, shown)
    if budget >= costs.total():
        shown.say(
            f"nothing to remove: the original costs {costs.total():.4g} {costs.unit}, {target} allows {budget:.4g}"
        )
    steps = sum(len(batches) * len(s.nodes) + setting.probes * len(counts_of(s, setting.levels)) for s in sublayers)
    with shown.phase("measuring layers", steps) as tick:
        ladders, shared = measure_ladders(
            graph, sublayers, batches, setting, known=saved.ladders(), done=saved.add_ladder, tick=tick
        )
    kept = search(sublayers, ladders, costs, budget, multiple=multiple)
    speedup = None
    if target.speedup is not None:
        with shown.phase("checking the speed-up"):
            kept, speedup = _until_measured(graph, sublayers, ladders, costs, target, kept, multiple)
    with shown.phase("repairing", 2 * len(batches) * len(sublayers)) as tick:
        repaired = repair(
            graph,
            sublayers,
            batches,
            kept,
            ladders,
            setting,
            shared=shared,
            known=saved.repaired(kept),
            done=partial(saved.add_repaired, kept),
            tick=tick,
        )
    expected = costs.total(kept)
    with shown.phase("comparing"):
        original = Runner(graph, Timeline(graph))
        compared = batches[: compared_batches(graph, batches)]
        distance = mean_divergence(original, Runner(repaired, original.timeline), compared, setting.multi_label)
    with shown.phase("compiling"):
        dense = _compiled(pruned, graph, repaired, sublayers, ladders, kept, verify)
    saved.drop_repaired()
    dense.one_shot = OneShotReport(
        target=target,
        choices=tuple(_choice(s, ladders[s.name], kept[s.name]) for s in sublayers),
        examples=sum(examples_of(batch) for batch in compared),
        divergence=distance,
        speedup=speedup,
        expected_cost=expected,
        original_cost=costs.total(),
        unit=costs.unit,
        seconds=dict(shown.seconds),
    )
    return dense


def _prunable(graph: fx.GraphModule, protect: Sequence[str]) -> tuple[Sublayer, ...]:
    from fnmatch import fnmatchcase

    found = find_sublayers(graph, find_roles(graph))
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


def _costs(
    graph: fx.GraphModule, sublayers: Sequence[Sublayer], target: Target, saved: Saved, shown: PhaseProgress
) -> tuple[Costs, float]:
    if target.speedup is None:
        return counted(graph, sublayers, target)
    seconds = saved.seconds(target)
    if seconds is None:
        with shown.phase("timing", len(probes_of(sublayers))) as tick:
            seconds = measure(graph, sublayers, target, tick=tick)
        saved.set_seconds(target, seconds)
    return timed(graph, sublayers, target, seconds)


def _masks(
    graph: fx.GraphModule, sublayers: Sequence[Sublayer], ladders: Mapping[str, Ladder], kept: Mapping[str, int]
) -> dict[str, Tensor]:
    return {
        s.weight: columns_mask(graph, s, ladders[s.name].kept(kept[s.name]))
        for s in sublayers
        if kept[s.name] < s.count
    }


def _until_measured(
    graph: fx.GraphModule,
    sublayers: Sequence[Sublayer],
    ladders: Mapping[str, Ladder],
    costs: Costs,
    target: Target,
    kept: dict[str, int],
    multiple: int,
) -> tuple[dict[str, int], float]:
    """Measure what was chosen, and choose again by a budget moved by what was missed, until the target is met.

    The weights' values do not matter to the speed, so that nothing needs to be refitted for this.
    """
    from bpc.bench.comparison import time_models

    assert target.speedup is not None
    budget, best = costs.total() / target.speedup, (kept, 1.0)
    for _ in range(_ROUNDS):
        masks = _masks(graph, sublayers, ladders, kept)
        if not masks:
            return kept, 1.0
        small = passes.shrink(graph, masks, verify=False).graph_module
        times = time_models({"original": graph, "small": small}, repeats=15, **timing_options(target))
        speedup = times["original"].best / times["small"].best
        if abs(speedup / target.speedup - 1) < abs(best[1] / target.speedup - 1):
            best = kept, speedup
        if abs(speedup / target.speedup - 1) <= _CLOSE:
            break
        # What was spent more (or less) than expected is taken off the budget of the next choice.
        budget -= costs.total() * (1 / speedup - 1 / target.speedup)
        try:
            chosen = search(sublayers, ladders, costs, budget, multiple=multiple)
        except TargetError:
            break
        if chosen == kept:
            break
        kept = chosen
    return best


def _compiled(
    pruned: nn.Module,
    graph: fx.GraphModule,
    repaired: fx.GraphModule,
    sublayers: Sequence[Sublayer],
    ladders: Mapping[str, Ladder],
    kept: Mapping[str, int],
    verify: bool,
) -> DenseModel:
    """Write the refitted weights into the copy of the model, which the graph reads, and shrink both."""
    from bpc.dense import DenseModel

    masks = _masks(graph, sublayers, ladders, kept)
    with torch.no_grad():
        for sublayer in sublayers:
            for name in (sublayer.weight, sublayer.bias):
                if name is not None:
                    get_attribute(graph, name).copy_(get_attribute(repaired, name))
    return DenseModel.from_shrink(passes.shrink(graph, masks, verify=verify), pruned)


def _choice(sublayer: Sublayer, ladder: Ladder, kept: int) -> Choice:
    loss = float(ladder.loss([kept])[0])
    return Choice(sublayer.name, sublayer.weight, sublayer.unit, kept, sublayer.count, loss)
