"""`shrink`: the ordered list of passes, each with the reason for its place, and the verification of the whole."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, get_args

import torch
from torch import fx, nn

from passes.analysis.width import Narrowing
from passes.certificate import Certificate, digests, plain, versions
from passes.frontend.bake import BakeWeights
from passes.frontend.reference import masked_reference
from passes.frontend.trace import trace
from passes.ir.info import TraceError, trace_info
from passes.ir.manager import Pass, PassManager, PassRecord
from passes.ir.session import exclusive
from passes.masks import MaskError, MaskSource, resolve_masks
from passes.options import Granularity, ShrinkOptions
from passes.plan.check import Check, example_check
from passes.plan.compose import cuts_after, folds_after, with_new_biases
from passes.plan.data import Cut, merge_folds
from passes.plan.errors import ModuleViewError
from passes.plan.plan import Origin, Plan
from passes.planning import plan_shrink
from passes.report import ShrinkReport, build_report, count_parameters, summarise
from passes.rewrite.apply_masks import ApplyMasks
from passes.rewrite.drop_noop_slices import DropNoopSlices
from passes.rewrite.fold_constants import FoldConstants
from passes.rewrite.narrow_width import NarrowWidth, RestrictWidth
from passes.rewrite.replace_constants import ReplaceConstants
from passes.rewrite.retrace import Retrace
from passes.rewrite.shrink_dims import ShrinkDims
from passes.verify.compare import compare
from passes.verify.diverge import first_divergence
from passes.verify.record import Trial, record_reference
from passes.width import WidthMask, kept_width, resolve_width, with_width

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 5e-3}
SEED = 0  # of the fresh inputs


@dataclass(frozen=True, repr=False)
class ShrinkResult:
    """The small graph, the plan that made it, and what to tell the user."""

    graph_module: fx.GraphModule
    plan: Plan
    report: ShrinkReport
    certificate: Certificate

    def __repr__(self) -> str:
        return f"ShrinkResult({self.report.short()})"

    def _repr_html_(self) -> str:
        """For notebooks."""
        return self.report._repr_html_()


def shrink_passes(masks: Mapping[str, torch.Tensor], options: ShrinkOptions | None = None) -> tuple[Pass, ...]:
    """The pipeline. The order is the theory's: numbers first, then constants, then shapes."""
    return (
        ApplyMasks(masks),  # first: every analysis reads plain zeros
        FoldConstants(),  # before shapes change: a folded channel is dead and need not be kept
        ShrinkDims(options or ShrinkOptions()),  # a dead sublayer keeps a zero index: modules can follow
        Retrace(),  # metadata is true again
        ReplaceConstants(),  # the graph alone drops the sublayers that died
        DropNoopSlices(),  # after all that may turn a slice into one of everything
    )


@exclusive
def shrink(
    graph_module: fx.GraphModule,
    masks: MaskSource = None,
    *,
    verify: bool = True,
    tolerance: float | None = None,
    granularity: Granularity = "dims",
    multiple: int = 1,
    width: WidthMask = None,
) -> ShrinkResult:
    """Rewrite a traced graph into a smaller dense one that computes exactly what the masked one does.

    Args:
        graph_module: from `passes.trace`. Not modified.
        masks: {parameter name: bool tensor of the parameter's shape, True = kept}, a file of them, block scores, or
            None, which reads the zeros in the weights; see `passes.masks.resolve_masks`. Raises `passes.MaskError`.
        verify: run both graphs on the example and on fresh inputs; raise `VerificationError` if they differ by more
            than rounding explains (`passes.verify.floor`), or by more than ``tolerance``, relative to the outputs'
            scale.
        granularity: "dims" removes all that can go; "even", "heads" and "units" cut attention less finely (see
            `ShrinkOptions`), for modules whose forward has one head size, or one head count, for all layers.
        multiple: keep dead (zero) dims until every count of FFN dims, and of dims per head, divides by it. The report
            names them; docs/benchmarks-onnx.md has what it costs.
        width: channels of the residual stream to keep, a bool tensor, or {parameter along a stream: such a tensor}. The
            masked model is then the one whose norms run over the kept channels alone, and outputs along the stream hold
            these alone; see `passes.width` and docs/exactness.md. Raises `passes.MaskError`.

    Exactness is promised for attention rows that see at least one key.
    """
    options = ShrinkOptions(granularity, multiple)
    _refuse_meta(graph_module)
    traced = weakref.ref(graph_module)
    baked = PassManager((BakeWeights(),)).run(graph_module)  # weights computed from masks: numbers
    graph_module = baked.graph_module
    resolved = resolve_masks(graph_module, masks)
    narrowing = resolve_width(graph_module, width)
    applied_masks = resolved if narrowing is None else with_width(graph_module, resolved, narrowing)
    apply, *others = shrink_passes(applied_masks, options)
    meant = partial(_meant, graph_module, applied_masks, narrowing)
    reference = None
    if verify:  # before the masked weights of the graph exist beside the reference's
        reference = record_reference(meant(), SEED, traced=graph_module)
    applied = PassManager((apply,)).run(graph_module)
    record = (*baked.record, *applied.record)
    masked = [applied.graph_module]
    del applied
    whole = count_parameters(masked[0])
    masked_digests = digests(masked[0].named_parameters())
    known = masked_digests.keys() | dict(masked[0].named_buffers()).keys()
    narrowed: tuple[Cut, ...] = ()
    if narrowing is not None:
        cut = PassManager((NarrowWidth(narrowing),)).run(masked.pop())
        masked, record = [cut.graph_module], (*record, *cut.record)
        narrowed = cut.facts["narrow-width"]["cuts"]
        del cut
    before = replace(summarise(masked[0]), parameters=whole)
    outcome = PassManager(others).run(masked.pop())  # nobody else holds the masked weights: passes free them
    small, record = outcome.graph_module, (*record, *outcome.record)
    if outcome.facts["replace-constants"]["constants"]:
        small, again = _shrink_again(small, options)
        record += again
    folds = merge_folds(outcome.facts["fold-constants"]["folds"] + outcome.facts["shrink-dims"]["folds"])
    agreement = None
    if reference is not None:

        def locate(trial: Trial) -> str:
            return first_divergence(meant(), small, trial.args, trial.kwargs)

        held = dict((*small.named_parameters(), *small.named_buffers())).keys()
        written = {fold.bias for fold in folds} | set(trace_info(graph_module).baked)
        agreement = compare(
            reference, small, tolerance=tolerance, locate=locate, anew=(held - known) | (held & written)
        )
    plan = Plan(
        cuts=cuts_after(with_new_biases(narrowed, folds), outcome.facts["shrink-dims"]["cuts"]),
        folds=folds_after(narrowed, folds),
        constants=tuple(outcome.facts["replace-constants"]["constants"]),
        heads=tuple(outcome.facts["shrink-dims"]["heads"]),
        aliases=trace_info(graph_module).aliases,
        origin=Origin(
            resolved,
            granularity,
            {name: parameter.numel() for name, parameter in small.named_parameters()},
            example=partial(example_check, small),
            coarser=partial(_coarser_plans, traced, resolved, options, width),
        ),
    )
    report = build_report(before, small, outcome.facts["shrink-dims"]["analysis"], agreement)
    said = {} if narrowing is None else {"width": kept_width(narrowing)}
    certificate = Certificate(
        view="graph",
        dtype=str(least_precise(graph_module)).removeprefix("torch."),
        seed=SEED,
        options=plain({**asdict(options), "tolerance": tolerance, **said}),
        versions=versions(),
        masked=masked_digests,
        small=digests(small.named_parameters()),
        plan=plan.plain(),
        passes=plain(record),
        agreement=plain(agreement),
    )
    return ShrinkResult(small, plan, report, certificate)


def _meant(
    graph_module: fx.GraphModule, masks: Mapping[str, torch.Tensor], narrowing: Narrowing | None
) -> fx.GraphModule:
    """What the small graph has to compute: torch.export's own module, masked.

    A width mask is put into the graph that `passes.trace` prepared and compared with it: that one says where norms are.
    """
    if narrowing is None:
        return masked_reference(graph_module, masks)
    return PassManager((ApplyMasks(masks), RestrictWidth(narrowing))).run(graph_module).graph_module


def _refuse_meta(graph_module: fx.GraphModule) -> None:
    for name, tensor in (*graph_module.named_parameters(), *graph_module.named_buffers()):
        if tensor.is_meta:
            raise MaskError(
                f"{name!r} is on the meta device, and shrinking writes and compares numbers: "
                "passes.plan_shrink(graph, masks, read=...) makes the plan without them"
            )


_MOST_ROUNDS = 16  # every round removes something; what a model leaves after so many is exact, if not the least


def _shrink_again(
    graph_module: fx.GraphModule, options: ShrinkOptions
) -> tuple[fx.GraphModule, tuple[PassRecord, ...]]:
    """Where a dead sublayer shared weights with live ones (fused q, k, v), its rows go from the graph as well."""
    record: tuple[PassRecord, ...] = ()
    for _ in range(_MOST_ROUNDS):
        outcome = PassManager((FoldConstants(), ShrinkDims(options))).run(graph_module)
        record += outcome.record
        if not outcome.modified:
            break
        outcome = PassManager((Retrace(), ReplaceConstants(), DropNoopSlices())).run(outcome.graph_module)
        graph_module, record = outcome.graph_module, (*record, *outcome.record)
    return graph_module, record


def _coarser_plans(
    traced: weakref.ref[fx.GraphModule],
    masks: Mapping[str, torch.Tensor],
    options: ShrinkOptions,
    width: WidthMask,
    zeroed: nn.Module,
    check: Check,
) -> Iterator[tuple[str, Plan]]:
    """Plans that cut attention less finely, for a model whose forward cannot follow the one that was made."""
    graph = traced()
    if graph is not None:
        tied = {name: masks[used] for name, used in trace_info(graph).aliases.items() if used in masks}
        masks = {**masks, **tied}  # masks of tied weights are given under every name
    else:  # nobody kept it: a plan does not keep a model's weights in memory
        try:
            graph, masks = trace(zeroed, dict(check.kwargs) or check.args), {}
        except TraceError as error:
            raise ModuleViewError(f"no coarser plan can be made for {type(zeroed).__name__}: {error}") from error
    order: tuple[Granularity, ...] = get_args(Granularity)
    for coarser in order[order.index(options.granularity) + 1 :]:
        yield coarser, plan_shrink(graph, masks, granularity=coarser, multiple=options.multiple, width=width)


def least_precise(graph_module: fx.GraphModule) -> torch.dtype:
    """The least precise floating dtype among the parameters and the values on the way to the outputs.

    A softmax computed in float32 inside a float64 model makes its rows sum to 1 only to float32's precision.
    """
    tensors = [n.meta.get("val") for n in graph_module.graph.nodes]
    found: set[Any] = {t.dtype for t in tensors if isinstance(t, torch.Tensor) and t.is_floating_point()}
    return min(found, key=lambda d: torch.finfo(d).bits, default=torch.float32)
