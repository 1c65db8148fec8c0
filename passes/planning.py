"""Planning without weights: what `shrink` would cut and fold, from a graph and masks alone.

A model too large for memory is traced on the meta device and planned from its masks. Numbers are needed only where a
mask kills something (a dead channel's constant comes from its bias), so weights are read one at a time, and not kept:

    graph = passes.trace(model_on_meta, inputs_on_meta)
    plan = passes.plan_shrink(graph, masks, read=TensorFile("checkpoint").get)

The plan equals `shrink`'s, but for weights that hold zeros of their own: without a mask they count as dense, unless
``own_zeros`` asks for their numbers too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import fx, nn

from passes.analysis.analysis import analyse
from passes.analysis.constants import WeightReader
from passes.frontend.bake import BakeWeights
from passes.ir.graph import get_attribute
from passes.ir.info import trace_info
from passes.ir.manager import PassManager
from passes.ir.session import exclusive
from passes.masks import MaskSource, resolve_masks
from passes.masks.check import MaskError
from passes.options import Granularity, ShrinkOptions
from passes.plan.compose import cuts_after, folds_after
from passes.plan.data import Cut, Fold, select
from passes.plan.plan import Plan
from passes.rewrite.narrow_width import NarrowWidth
from passes.width import WidthMask, resolve_width


@exclusive
def plan_shrink(
    graph_module: fx.GraphModule,
    masks: MaskSource = None,
    *,
    read: WeightReader | None = None,
    own_zeros: bool = False,
    granularity: Granularity = "dims",
    multiple: int = 1,
    width: WidthMask = None,
) -> Plan:
    """The plan `shrink` would carry out: cuts, folds and head counts. Nothing is written, and nothing verified.

    Args:
        graph_module: from `passes.trace`; its parameters may be on the meta device.
        masks: as for `passes.shrink`.
        read: {parameter name} -> its numbers, or None if it has none; asked for masked matrices, and for vectors
            (biases) and buffers, one at a time and more than once. ``passes.masks.TensorFile("model-dir").get`` reads a
            (sharded) checkpoint so. Raises `MaskError` for numbers of another shape than the parameter's. Default: the
            graph's own parameters, all of them; those on the meta device count as dense and of unknown value.
        own_zeros: ask ``read`` for matrices without a mask too: they may hold zeros of their own, as `passes.shrink`
            sees.
        granularity, multiple, width: as for `passes.shrink`.
    """
    graph_module = PassManager((BakeWeights(),)).run(graph_module).graph_module
    resolved: Mapping[str, torch.Tensor] = resolve_masks(graph_module, masks)
    reader = None if read is None else _selective(graph_module, None if own_zeros else resolved, read)
    aliases, narrowed = trace_info(graph_module).aliases, tuple[Cut, ...]()
    narrowing = resolve_width(graph_module, width)
    if narrowing is not None:
        outcome = PassManager((NarrowWidth(narrowing),)).run(graph_module)
        graph_module, narrowed = outcome.graph_module, outcome.facts["narrow-width"]["cuts"]
        keeps = {cut.parameter: cut.keep for cut in narrowed}
        resolved = {name: select(mask, keeps.get(name, {})) for name, mask in resolved.items()}
        reader = None if reader is None else _cut(reader, keeps)
    analysis = analyse(graph_module, resolved, reader, ShrinkOptions(granularity, multiple))
    own, heads = analysis.cuts(), analysis.head_views()
    if not any(cut.keep for cut in own):  # as in `ShrinkDims`
        own, heads = (), ()
    folds, cuts = folds_after(narrowed, analysis.folds()), cuts_after(narrowed, own)
    if not any(cut.keep for cut in cuts):
        return Plan((), folds, aliases=aliases)
    return Plan((*cuts, *_new_bias_cuts(folds, cuts)), folds, heads=heads, aliases=aliases)


def _selective(
    graph_module: fx.GraphModule, masks: Mapping[str, torch.Tensor] | None, read: WeightReader
) -> WeightReader:
    """Ask for masked parameters, vectors and buffers: other matrices count as dense. ``masks`` None: ask for all."""

    def reader(name: str) -> torch.Tensor | None:
        parameter = get_attribute(graph_module, name)
        if masks is not None and name not in masks and parameter.dim() != 1 and isinstance(parameter, nn.Parameter):
            return None
        tensor = read(name)
        if tensor is not None and tensor.shape != parameter.shape:
            raise MaskError(
                f"{name!r} was read with shape {tuple(tensor.shape)}; the traced model has {tuple(parameter.shape)}"
            )
        return tensor

    return reader


def _cut(read: WeightReader, keeps: Mapping[str, Mapping[int, tuple[int, ...]]]) -> WeightReader:
    """What a narrowed graph holds of the numbers that ``read`` gives."""

    def reader(name: str) -> torch.Tensor | None:
        tensor = read(name)
        return None if tensor is None else select(tensor, keeps.get(name, {}))

    return reader


def _new_bias_cuts(folds: tuple[Fold, ...], cuts: tuple[Cut, ...]) -> Iterator[Cut]:
    """Biases that folding adds shrink with the rows of their weight."""
    by_name = {cut.parameter: cut for cut in cuts}
    for fold in folds:
        cut = by_name.get(fold.weight)
        out_dim = 1 - fold.in_dim
        if fold.new_bias and cut is not None and out_dim in cut.keep and any(fold.constants):
            cleared = cut.cleared if cut.cleared_dim == out_dim else ()
            yield Cut(fold.bias, (cut.shape[out_dim],), {0: cut.keep[out_dim]}, cleared)
