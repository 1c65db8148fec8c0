"""`prune_once`: a model, unlabelled examples and a target become a smaller dense model, without training.

trace → what each sublayer may lose (ladders) → how much each loses (search) → refit the rest (repair) → compile
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

import passes
from bpc.costs import Costs, Widths
from bpc.hub.widen import widen
from bpc.oneshot.batches import as_traced, calibration_batches, trace_example
from bpc.oneshot.costs import CLOSE, ROUNDS, measured_speedup
from bpc.oneshot.heads import Heads, find_heads
from bpc.oneshot.ladder import Ladder
from bpc.oneshot.ladders import Narrow
from bpc.oneshot.problem import Problem, prunable, setting_of
from bpc.oneshot.progress import PhaseProgress
from bpc.oneshot.resume import Saved
from bpc.oneshot.search import Selection
from bpc.oneshot.stream import Original
from bpc.oneshot.target import Target, TargetError
from bpc.wrapped import plain_model
from passes.ir.graph import get_attribute
from passes.plan.copies import full_copy
from passes.rewrite.turn_heads import Turn, TurnHeads
from passes.structure.roles import find_roles

if TYPE_CHECKING:
    from bpc.dense import DenseModel


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
    prices: Costs | None = None,
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
        prices: of an earlier call to a speed-up, ``dense.one_shot.prices``, where ``model`` is what came out of that,
            trained or not: what units cost is then not timed again. What is chosen still is.

    Returns a `bpc.DenseModel`, whose ``one_shot`` is a `OneShotReport`. Raises `CalibrationError` for data that do not
    fit, `TargetError` for a target that cannot be met, `passes.TraceError` for a model that cannot be traced,
    ValueError for one with adapters (LoRA), and for prices of another model.
    """
    from bpc.dense import DenseModel

    if not isinstance(model, nn.Module):
        raise TypeError(f"prune_once takes a loaded model (an nn.Module), not a {type(model).__name__}: {model!r}")
    target = Target.of(target)
    shown = progress if isinstance(progress, PhaseProgress) else PhaseProgress(enabled=progress)
    pruned = widen(full_copy(plain_model(model))).cpu().eval()
    batches = calibration_batches(
        pruned, data, tokenizer, samples=samples, batch_size=batch_size, max_length=max_length
    )
    with shown.phase("tracing"):
        graph = passes.trace(pruned, trace_example(pruned, batches[0]))
    roles = find_roles(graph)
    sublayers = prunable(graph, roles, protect)
    batches = [as_traced(graph, batch) for batch in batches]
    heads = {} if narrow == "no" else find_heads(graph, sublayers, roles, batches[0])
    if narrow == "alike":
        heads = {name: own for name, own in heads.items() if own.value is not None and own.key is not None}
    setting = setting_of(pruned, graph, sublayers, batches, effort=effort, ridge=ridge, narrow=narrow, heads=heads)
    original = Original.of(graph)
    saved = Saved(state, original, batches, setting)
    problem = Problem(original, sublayers, heads, batches, setting, target, multiple, saved, shown, prices)
    costs, budget = problem.costs()
    ladders, shared = problem.ladders()
    selection = problem.search(ladders, costs, budget)
    speedup = None
    if target.speedup is not None:
        with shown.phase("checking the speed-up"):
            selection, speedup = _until_measured(problem, ladders, costs, selection, target.speedup)
    turns = [turn for name, width in selection.widths.items() for turn in _turns(heads[name], ladders[name], width)]
    _write(graph, TurnHeads(turns).numbers(original.weights))
    changed = problem.repaired(ladders, shared, selection)
    compared = problem.compared(changed)
    with shown.phase("compiling"):
        # The graph reads the weights of the copy of the model: both get the refitted ones, and are shrunk together.
        _write(graph, changed)
        dense = DenseModel.from_shrink(passes.shrink(graph, problem.masks(ladders, selection), verify=verify), pruned)
    saved.drop_repaired()
    dense.one_shot = problem.report(ladders, selection, costs, compared, speedup)
    return dense


def _until_measured(
    problem: Problem, ladders: Mapping[str, Ladder], costs: Costs, selection: Selection, wanted: float
) -> tuple[Selection, float]:
    """Measure what was chosen, and choose again by a budget moved by what was missed, until it is ``wanted`` times as
    fast.

    The weights' values do not matter to the speed, so that nothing needs to be refitted for this.
    """
    graph = problem.original.graph
    budget, best = costs.total() / wanted, (selection, 1.0)
    for _ in range(ROUNDS):
        masks = problem.masks(ladders, selection)
        if not masks:
            return selection, 1.0
        speedup = measured_speedup(graph, masks, problem.target)
        if abs(speedup / wanted - 1) < abs(best[1] / wanted - 1):
            best = selection, speedup
        if abs(speedup / wanted - 1) <= CLOSE:
            break
        # What was spent more (or less) than expected is taken off the budget of the next choice.
        budget -= costs.total() * (1 / speedup - 1 / wanted)
        try:
            chosen = problem.search(ladders, costs, budget)
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
