"""The module view: the plan of a shrink applied to the user's own model object.

An ``nn.Linear(768, 768)`` becomes ``nn.Linear(768, 256)`` and everything of the ecosystem (``generate``, ``Trainer``,
``save_pretrained``) goes on working. Parameters are cut by name. The Python numbers a forward reads (head counts, head
sizes) are found by their old values on the module that owns the projections, and where a number could mean two things
the candidates are tried until the module computes what the graph does. A forward that no assignment makes right is
refused: then the graph view is the only one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

import torch
from torch import nn

from passes.ir.compact import compact, compact_layers, expand, output_dim
from passes.ir.tensors import masked
from passes.plan.broadcast import accidental_broadcast
from passes.plan.copies import share_copy
from passes.plan.data import Cut, Masks, PlanData
from passes.plan.errors import ModuleViewError
from passes.plan.numbers import candidate_attributes, doubtful_number, reading_module, set_attributes
from passes.plan.sizes import tell_sizes
from passes.plan.tensors import SmallTensors


class Checks(Protocol):
    """What says whether a small module computes what it has to."""

    def run(self, module: nn.Module) -> Any:
        """Run a module on the example."""

    def failure(self, module: nn.Module) -> str | None:
        """None if it does; else what went wrong."""


def apply_plan(
    plan: PlanData,
    model: nn.Module,
    masks: Masks | None = None,
    check: Checks | None = None,
    biases: Collection[str] | None = None,
) -> nn.Module:
    """A smaller copy of ``model`` that follows ``plan`` to the letter; unchanged parameters are shared.

    ``masks`` are applied to the weights first (leave out if they are zeros already). ``check``: what to verify the
    result against; without it the numbers have to be given (``plan.attributes``) or none may be in doubt. ``biases``:
    for a model on the meta device, see `SmallTensors`. Raises `ModuleViewError`.
    """
    base = _plain_copy(model)
    _check_names(plan, base, masks or {})
    tensors = SmallTensors(plan, _tensors(base), masks or {}, biases)
    _check_places(plan, base, tensors.biases)
    _register(base, dict(tensors), plan.aliases, {cut.parameter: cut for cut in plan.cuts})
    if plan.attributes is not None:
        set_attributes(base, plan.attributes)
        _spread(plan, base)
        failure = _failure(check, model, base)
        if failure is not None:
            raise ModuleViewError(f"{type(model).__name__} does not follow the plan: {failure}")
        return base
    failure = None
    if check is None and (doubtful := doubtful_number(plan, base)):
        raise ModuleViewError(
            f"nothing says whether {doubtful} has to follow the plan, and there is nothing to check it against: apply "
            "the plan that shrink returned, give check=, or a plan with attributes (that of a saved dense model)"
        )
    for attributes in candidate_attributes(plan, base):
        candidate = share_copy(base)
        set_attributes(candidate, attributes)
        _spread(plan, candidate)
        failed = _failure(check, model, candidate)
        if failed is None:
            return candidate
        failure = failure or failed  # that of the likeliest candidate
    reason = _suspects(plan, base)
    hint = "" if masks else "If the model's weights still have what the masks prune, give masks=. "
    raise ModuleViewError(
        f"{type(model).__name__} cannot follow the plan as a module: {failure}. {reason} {hint}Use the graph "
        'view (graph_module, ONNX, .pt2), or a coarser plan: shrink(..., granularity="even"), "heads" or "units".',
        reason,
    )


def with_masks(model: nn.Module, masks: Masks, aliases: Mapping[str, str]) -> nn.Module:
    """A copy of ``model`` with masks applied to its weights; unmasked parameters are shared."""
    copied = _plain_copy(model)
    named = _tensors(copied)
    new = {name: masked(named[name].detach(), mask) for name, mask in masks.items()}
    _register(copied, new, aliases)
    return copied


def _failure(check: Checks | None, model: nn.Module, small: nn.Module) -> str | None:
    return None if check is None else check.failure(small) or accidental_broadcast(model, small, check.run)


def _plain_copy(model: nn.Module) -> nn.Module:
    """A copy that shares every tensor, but for those of compact layers, which are plain ones in it."""
    copied = share_copy(model)
    for layer in compact_layers(copied).values():
        expand(layer)
    return copied


def _spread(plan: PlanData, model: nn.Module) -> None:
    held: dict[str, dict[int, tuple[int, tuple[int, ...]]]] = {}
    for spread in plan.spreads:
        held.setdefault(spread.weight, {})[spread.dim] = spread.size, spread.places
    for name, dims in held.items():
        owner, leaf = _owner(model, name)
        if leaf != "weight" or output_dim(owner) is None:
            raise ModuleViewError(f"{name}, of which the plan holds less than its forward sees, is no linear layer's")
        try:
            compact(owner, dims)
        except ValueError as error:
            raise ModuleViewError(f"{name}: {error}") from None


def _suspects(plan: PlanData, model: nn.Module) -> str:
    """Which parameters need what the numbers of a forward may not be able to say."""
    if not plan.heads:
        return f"Its forward fixes a size of {', '.join(cut.parameter for cut in plan.cuts)}."
    layers: dict[str, dict[int, str]] = {}  # {layer: {dims per head: one parameter that has them}}
    for view in plan.heads:
        layers.setdefault(reading_module(model, view.parameter), {}).setdefault(view.after[1], view.parameter)
    for path, sizes in layers.items():
        if len(sizes) > 1:
            named = " and ".join(f"{dims} in {name}" for dims, name in sizes.items())
            return f"A forward has one head size, but {path or 'the model'} needs {named}."
    changed = {view.after: view.parameter for view in reversed(plan.heads) if view.after != view.before}
    named = ", ".join(f"{heads} heads of {dims} in {name}" for (heads, dims), name in changed.items())
    return f"Its forward fixes a head count or head size that the plan changes ({named})."


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    try:
        return model.get_submodule(path), leaf
    except AttributeError:
        raise ModuleViewError(
            f"{type(model).__name__} has no module {path!r} for the plan's parameter {name!r}"
        ) from None


def _check_names(plan: PlanData, model: nn.Module, masks: Masks) -> None:
    """Raises `ModuleViewError` for a tensor that the plan changes and the model lacks."""
    named, added = _tensors(model), {fold.bias for fold in plan.folds if fold.new_bias}
    wanted = {plan.aliases.get(name, name) for name in masks} | {fold.weight for fold in plan.folds}
    wanted |= {fold.bias for fold in plan.folds} - added
    wanted |= {cut.parameter for cut in plan.cuts if cut.parameter not in added and _is_computed(model, cut.parameter)}
    for name in sorted(wanted - named.keys()):
        raise ModuleViewError(_missing(model, name))


def _check_places(plan: PlanData, model: nn.Module, biases: Collection[str]) -> None:
    """Raises `ModuleViewError` for a bias that folding adds where the module has no place for one."""
    for fold in plan.folds:
        if fold.new_bias and fold.bias in biases:
            owner, leaf = _owner(model, fold.weight)
            named = fold.bias == fold.weight.removesuffix("weight") + "bias"
            if not named or leaf != "weight" or not isinstance(owner, nn.Linear):
                raise ModuleViewError(
                    f"{fold.weight} needs a bias for folded constants, and {type(owner).__name__} has no place for one"
                )


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers under each of their names."""
    return dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))


def _is_computed(model: nn.Module, name: str) -> bool:
    """An attribute that is no parameter: what pruning hooks and parametrizations make in every forward."""
    try:
        return hasattr(*_owner(model, name))
    except ModuleViewError:
        return False


def _missing(model: nn.Module, name: str) -> str:
    said = f"{type(model).__name__} has no parameter {name!r}, which the plan cuts"
    if not _is_computed(model, name):
        return said
    return (
        f"{said}: it is computed in every forward. Make it a parameter first: torch.nn.utils.prune.remove, or "
        "torch.nn.utils.parametrize.remove_parametrizations"
    )


def _register(
    model: nn.Module,
    new: Mapping[str, torch.Tensor],
    aliases: Mapping[str, str],
    cuts: Mapping[str, Cut] | None = None,
) -> None:
    """Put tensors in the place of a module's own, under every name of a tied one."""
    names_of: dict[str, list[str]] = {}
    for alias, canonical in aliases.items():
        names_of.setdefault(canonical, []).append(alias)
    named = _tensors(model)
    for name, tensor in new.items():
        before = named.get(name)  # None: a bias that folding added, which trains as the others do
        trains = tensor.is_floating_point() if before is None else before.requires_grad
        parameter = nn.Parameter(tensor, requires_grad=trains)
        for alias in names_of.get(name, [name]):
            owner, leaf = _owner(model, alias)
            if leaf in owner._buffers:
                owner._buffers[leaf] = tensor
            else:
                try:
                    owner.register_parameter(leaf, parameter)
                except KeyError as error:  # the name of a submodule, or none
                    raise ModuleViewError(f"{type(model).__name__} has no place for {alias!r}: {error}") from None
            tell_sizes(owner, (cuts or {}).get(name))
