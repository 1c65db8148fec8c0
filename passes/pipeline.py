"""`shrink`: the ordered list of passes, each with the reason for its place, and the verification of the whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from passes.base import Pass, PassManager
from passes.plan import Plan
from passes.program import get_attribute, trace_info
from passes.report import ShrinkReport, build_report
from passes.rewrite.apply_masks import ApplyMasks
from passes.rewrite.fold_constants import FoldConstants
from passes.rewrite.replace_constants import ReplaceConstants
from passes.rewrite.retrace import Retrace
from passes.rewrite.shrink_dims import Granularity, ShrinkDims
from passes.verify import verify_equivalent

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 5e-3}


@dataclass(frozen=True)
class ShrinkResult:
    """The small graph, the plan that made it, and what to tell the user."""

    graph_module: fx.GraphModule
    plan: Plan
    report: ShrinkReport


def shrink_passes(masks: Mapping[str, torch.Tensor], granularity: Granularity = "dims") -> tuple[Pass, ...]:
    """The pipeline. The order is the theory's: numbers first, then constants, then shapes."""
    return (
        ApplyMasks(masks),  # first: every analysis reads plain zeros
        FoldConstants(),  # before shapes change: a folded channel is dead and need not be kept
        ShrinkDims(granularity),  # a sublayer that died keeps one zero index, so that modules can follow (see `Plan`)
        Retrace(),  # metadata is true again
        ReplaceConstants(),  # the graph alone drops the sublayers that died
    )


def shrink(
    graph_module: fx.GraphModule,
    masks: Mapping[str, torch.Tensor] | None = None,
    *,
    verify: bool = True,
    tolerance: float | None = None,
    granularity: Granularity = "dims",
) -> ShrinkResult:
    """Rewrite a traced graph into a smaller dense one that computes exactly what the masked one does.

    Parameters
    ----------
    graph_module: from `passes.trace`. Not modified.
    masks: {parameter name: bool tensor of the parameter's shape, True = kept}; None reads the zeros in the weights.
    verify: run both graphs on the example and on fresh inputs; raise `VerificationError` if they differ by more than
        ``tolerance`` (relative to the outputs' scale; default by dtype, 1e-5 in float32, 1e-10 in float64).
    granularity: "dims" removes all that can go; "heads" and "units" cut attention less finely (see `ShrinkDims`), for
        modules whose forward has one head size, or one head count, for all layers.

    Exactness is promised for attention rows that see at least one key.
    """
    masks = check_masks(graph_module, masks or {})
    masked = PassManager((ApplyMasks(masks),)).run(graph_module).graph_module
    outcome = PassManager(shrink_passes({}, granularity)[1:]).run(masked)
    small = outcome.graph_module
    agreement = None
    if verify:
        agreement = verify_equivalent(masked, small, tolerance=tolerance or TOLERANCE[least_precise(graph_module)])
    folds = tuple(outcome.facts["fold-constants"]["folds"])
    plan = Plan(
        cuts=tuple(outcome.facts["shrink-dims"]["cuts"]),
        folds=folds,
        constants=tuple(outcome.facts["replace-constants"]["constants"]),
        heads=tuple(outcome.facts["shrink-dims"]["heads"]),
        aliases=trace_info(graph_module).aliases,
    )
    report = build_report(masked, small, outcome.facts["shrink-dims"]["coupling"], agreement)
    return ShrinkResult(small, plan, report)


class MaskError(ValueError):
    """A mask does not fit the model; the message names the parameter."""


def check_masks(graph_module: fx.GraphModule, masks: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Masks under the names the graph uses, checked. Raises `MaskError`."""
    aliases = trace_info(graph_module).aliases
    used = {str(n.target) for n in graph_module.graph.nodes if n.op == "get_attr"}
    checked: dict[str, torch.Tensor] = {}
    for name, mask in masks.items():
        canonical = aliases.get(name, name)
        if canonical not in used:
            known = ", ".join(sorted(used)[:5])
            raise MaskError(f"mask for {name!r}: the traced model has no parameter of that name (it has {known}, …)")
        if not isinstance(mask, torch.Tensor) or mask.dtype is not torch.bool:
            kind = mask.dtype if isinstance(mask, torch.Tensor) else type(mask).__name__
            raise MaskError(f"mask for {name!r} is {kind}; pass a bool tensor, True where the weight is kept")
        shape = tuple(get_attribute(graph_module, canonical).shape)
        if tuple(mask.shape) != shape:
            raise MaskError(f"mask for {name!r} has shape {tuple(mask.shape)}; the parameter has {shape}")
        if canonical in checked and not torch.equal(checked[canonical], mask):
            raise MaskError(
                f"mask for {name!r} disagrees with the mask of {canonical!r}, which is the same (tied) parameter"
            )
        checked[canonical] = mask
    return checked


def least_precise(graph_module: fx.GraphModule) -> torch.dtype:
    """The least precise floating dtype among the parameters and the values on the way to the outputs.

    A softmax computed in float32 inside a float64 model makes its rows sum to 1 only to float32's precision.
    """
    tensors = [n.meta.get("val") for n in graph_module.graph.nodes]
    found: set[Any] = {t.dtype for t in tensors if isinstance(t, torch.Tensor) and t.is_floating_point()}
    return min(found, key=lambda d: torch.finfo(d).bits, default=torch.float32)
