"""The module view: the plan of a shrink applied to the user's own model object.

An ``nn.Linear(768, 768)`` becomes ``nn.Linear(768, 256)`` and everything of the ecosystem (``generate``, ``Trainer``,
``save_pretrained``) goes on working. Parameters are cut by name. The Python numbers a forward reads (head counts, head
sizes) are found by their old values on the module that owns the projections, and where a number could mean two things
the candidates are tried until the module computes what the graph does. A forward that no assignment makes right is
refused: then the graph view is the only one.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from passes.plan import Cut, Fold, Masks, Plan, cut_tensor
from passes.program import trace_info
from passes.verify import outputs_of

Attributes = Mapping[str, Mapping[str, int]]
_MOST_CANDIDATES = 64


class ModuleViewError(RuntimeError):
    """The plan cannot be applied to this module; the message says why. The graph view is not affected."""


@dataclass(frozen=True)
class Check:
    """Example inputs and the outputs the module view has to reproduce on them."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[torch.Tensor, ...]
    tolerance: float

    def failure(self, module: nn.Module) -> str | None:
        """None if the module computes the outputs; else what went wrong."""
        was_training = module.training
        module.eval()
        try:
            with torch.no_grad():
                leaves = pytree.tree_leaves(module(*self.args, **self.kwargs))
        except Exception as error:  # the forward is the user's: anything can come out of it
            return f"its forward fails: {type(error).__name__}: {error}"
        finally:
            module.train(was_training)
        actual = [t for t in leaves if isinstance(t, torch.Tensor)]
        for expected, got in zip(self.outputs, actual, strict=False):
            if expected.shape != got.shape:
                return f"its output has shape {tuple(got.shape)} instead of {tuple(expected.shape)}"
            if expected.is_floating_point():
                difference = float((expected.double() - got.double()).abs().max())
                if not difference <= self.tolerance * max(1.0, float(expected.abs().max())):
                    return f"its output differs from the graph's by {difference:.2e}"
        return None


def example_check(small: fx.GraphModule, tolerance: float) -> Check:
    """What a small graph makes of the example it was traced with."""
    info = trace_info(small)
    return Check(info.args, info.kwargs, tuple(outputs_of(small, info.args, info.kwargs)), tolerance)


def apply_plan(plan: Plan, model: nn.Module, masks: Masks | None = None, check: Check | None = None) -> nn.Module:
    """A smaller copy of ``model``; the model itself is untouched, unchanged parameters are shared.

    ``masks`` are applied to the weights first (leave out if they are zeros already). ``check``: what to verify the
    result against; without it the numbers have to be given (``plan.attributes``) or none may be in doubt.
    Raises `ModuleViewError`.
    """
    base = _share_copy(model)
    _cut_parameters(plan, base, masks or {})
    if plan.attributes is not None:
        _set_attributes(base, plan.attributes)
        failure = check.failure(base) if check is not None else None
        if failure is not None:
            raise ModuleViewError(f"{type(model).__name__} does not follow the plan: {failure}")
        return base
    failure = None
    if check is None and (doubtful := _doubtful(plan, base)):
        raise ModuleViewError(
            f"nothing says whether {doubtful} has to follow the plan, and there is nothing to check it against: apply "
            "the plan that shrink returned, give check=, or a plan with attributes (that of a saved dense model)"
        )
    for attributes in _candidates(plan, base):
        candidate = _share_copy(base)
        _set_attributes(candidate, attributes)
        failed = check.failure(candidate) if check is not None else None
        if failed is None:
            return candidate
        failure = failure or failed  # that of the likeliest candidate
    raise ModuleViewError(
        f"{type(model).__name__} cannot follow the plan as a module: {failure}. {_suspects(plan, base)} Use the graph "
        'view (graph_module, ONNX, .pt2), or a coarser plan: shrink(..., granularity="even"), "heads" or "units".'
    )


def _suspects(plan: Plan, model: nn.Module) -> str:
    """Which parameters need what the numbers of a forward may not be able to say."""
    if not plan.heads:
        return f"Its forward fixes a size of {', '.join(cut.parameter for cut in plan.cuts)}."
    layers: dict[str, dict[int, str]] = {}  # {layer: {dims per head: one parameter that has them}}
    for view in plan.heads:
        layers.setdefault(_reader(model, view.parameter), {}).setdefault(view.after[1], view.parameter)
    for path, sizes in layers.items():
        if len(sizes) > 1:
            named = " and ".join(f"{dims} in {name}" for dims, name in sizes.items())
            return f"A forward has one head size, but {path or 'the model'} needs {named}."
    changed = {view.after: view.parameter for view in reversed(plan.heads) if view.after != view.before}
    named = ", ".join(f"{heads} heads of {dims} in {name}" for (heads, dims), name in changed.items())
    return f"Its forward fixes a head count or head size that the plan changes ({named})."


def attributes_of(plan: Plan, original: nn.Module, small: nn.Module) -> Plan:
    """The plan with the numbers that `apply_plan` found written down, so that applying it again needs no search."""
    found: dict[str, dict[str, int]] = {}
    new = dict(small.named_modules())
    for name, module in original.named_modules():
        now = _numbers(new[name])
        changed = {k: now[k] for k, v in _numbers(module).items() if now.get(k, v) != v}
        if changed:
            found[name] = changed
    return dataclasses.replace(plan, attributes=found)


def _share_copy(model: nn.Module) -> nn.Module:
    """A copy of the module tree that shares every tensor."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    return copy.deepcopy(model, {id(t): t for t in tensors})


# --------------------------------------------------------------------------------------------------- parameters


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    try:
        return model.get_submodule(path), leaf
    except AttributeError:
        raise ModuleViewError(
            f"{type(model).__name__} has no module {path!r} for the plan's parameter {name!r}"
        ) from None


def _cut_parameters(plan: Plan, model: nn.Module, masks: Masks) -> None:
    named = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    names_of: dict[str, list[str]] = {}
    for alias, canonical in plan.aliases.items():
        names_of.setdefault(canonical, []).append(alias)
    new: dict[str, torch.Tensor] = {}
    cuts = {cut.parameter: cut for cut in plan.cuts}

    def current(name: str) -> torch.Tensor:
        if name not in new:
            if name not in named:
                raise ModuleViewError(f"{type(model).__name__} has no parameter {name!r}, which the plan cuts")
            new[name] = named[name].detach()
        return new[name]

    for name, mask in masks.items():
        canonical = plan.aliases.get(name, name)
        new[canonical] = current(canonical) * mask.to(current(canonical).device)
    for fold in plan.folds:
        _apply_fold(fold, model, current, new)
    for cut in plan.cuts:
        if cut.parameter in named or cut.parameter in new:
            shape = tuple(current(cut.parameter).shape)
            if shape != cut.shape:
                raise ModuleViewError(f"{cut.parameter} has shape {shape}; the plan was made for {cut.shape}")
            new[cut.parameter] = cut_tensor(current(cut.parameter), cut)
    for name, tensor in new.items():
        parameter = nn.Parameter(tensor, requires_grad=tensor.is_floating_point())
        for alias in names_of.get(name, [name]):
            owner, leaf = _owner(model, alias)
            if leaf in owner._buffers:
                owner._buffers[leaf] = tensor
            else:
                owner.register_parameter(leaf, parameter)
            _tell_sizes(owner, cuts.get(name))


def _apply_fold(
    fold: Fold, model: nn.Module, current: Callable[[str], torch.Tensor], new: dict[str, torch.Tensor]
) -> None:
    weight = current(fold.weight)
    columns = torch.tensor(fold.columns, device=weight.device)
    numbers = torch.tensor(fold.constants, dtype=torch.float64, device=weight.device)
    taken = weight.index_select(fold.in_dim, columns).double()
    shift = taken @ numbers if fold.in_dim == 1 else numbers @ taken
    new[fold.weight] = weight.index_fill(fold.in_dim, columns, 0)
    if not fold.new_bias:
        new[fold.bias] = (current(fold.bias).double() + shift).to(weight.dtype)
    elif bool((shift != 0).any()):
        owner, leaf = _owner(model, fold.weight)
        if (
            fold.bias != fold.weight.removesuffix("weight") + "bias"
            or leaf != "weight"
            or not isinstance(owner, nn.Linear)
        ):
            raise ModuleViewError(
                f"{fold.weight} needs a bias for folded constants, and {type(owner).__name__} has no place for one"
            )
        new[fold.bias] = shift.to(weight.dtype)


def _tell_sizes(owner: nn.Module, cut: Cut | None) -> None:
    """Sizes that torch's and transformers' layers repeat beside their weight, which was cut as ``cut`` says."""
    weight = owner._parameters.get("weight")
    if weight is None:
        return
    shape = tuple(weight.shape)
    if isinstance(owner, nn.Linear):
        owner.out_features, owner.in_features = shape
    elif isinstance(owner, nn.Embedding):
        owner.num_embeddings, owner.embedding_dim = shape
    elif isinstance(owner, nn.LayerNorm | nn.RMSNorm):
        owner.normalized_shape = shape
    elif isinstance(owner, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        if cut is not None and len(cut.shape) > 1 and 0 in cut.keep:
            each = cut.shape[0] // owner.groups  # output channels of a group
            owner.groups = len({channel // each for channel in cut.keep[0]})
        owner.out_channels, owner.in_channels = shape[0], shape[1] * owner.groups
    elif {"nf", "nx"} <= owner.__dict__.keys():  # transformers' Conv1D: weight is [in, out]
        owner.__dict__.update(nx=shape[0], nf=shape[1])


# --------------------------------------------------------------------------------------------------- attributes


def _numbers(module: nn.Module) -> dict[str, int]:
    """The plain int attributes a forward may read."""
    return {k: v for k, v in module.__dict__.items() if type(v) is int and not k.startswith("_") and k != "layer_idx"}


def _set_attributes(model: nn.Module, attributes: Attributes) -> None:
    for path, numbers in attributes.items():
        try:
            module = model.get_submodule(path)
        except AttributeError:
            raise ModuleViewError(f"{type(model).__name__} has no module {path!r}, which the plan sets") from None
        for name, number in numbers.items():
            setattr(module, name, number)


def _meanings(plan: Plan, model: nn.Module) -> dict[str, dict[int, list[int]]]:
    """{module path: {old number: [what it may have to become]}}, for modules that own head projections."""
    found: dict[str, dict[int, list[int]]] = {}
    for view in plan.heads:
        options = found.setdefault(_reader(model, view.parameter), {})
        for old, new in (
            (view.before[0], view.after[0]),
            (view.before[1], view.after[1]),
            (view.before[0] * view.before[1], view.after[0] * view.after[1]),
        ):
            if new not in options.setdefault(old, []):
                options[old].append(new)
    for path in found:
        _add_group_counts(plan, path, found[path])
    return found


def _reader(model: nn.Module, parameter: str) -> str:
    """The path of the module whose forward views a projection as heads: the one that owns the layer."""
    holder, _, _ = parameter.rpartition(".")
    return holder if "weight" not in model.get_submodule(holder)._parameters else holder.rpartition(".")[0]


def _add_group_counts(plan: Plan, path: str, options: dict[int, list[int]]) -> None:
    """Query heads per key/value head: a quotient of two head counts of one module."""
    views = [v for v in plan.heads if v.parameter.startswith(path + ".")]
    for a, b in itertools.permutations(views, 2):
        if b.after[0] and a.before[0] % b.before[0] == 0 and a.after[0] % b.after[0] == 0 and a.before[0] > b.before[0]:
            new = a.after[0] // b.after[0]
            if new not in options.setdefault(a.before[0] // b.before[0], []):
                options[a.before[0] // b.before[0]].append(new)


def _doubtful(plan: Plan, model: nn.Module) -> str | None:
    """A number that equals one the plan changes."""
    for path, options in _meanings(plan, model).items():
        for name, old in _numbers(model.get_submodule(path)).items():
            if any(new != old for new in options.get(old, ())):
                return f"{path}.{name} = {old}"
    return None


def _candidates(plan: Plan, model: nn.Module) -> Iterator[Attributes]:
    """Assignments to try, likeliest first. An attribute means the same in all modules of one class."""
    meanings = _meanings(plan, model)
    choices: dict[tuple[str, str], int] = {}  # (class, attribute) -> how many options it has at most
    places: list[tuple[str, str, tuple[str, str], list[int]]] = []
    for path, options in meanings.items():
        module = model.get_submodule(path)
        for name, old in _numbers(module).items():
            if old in options:
                key = (type(module).__name__, name)
                values = [*options[old], *([old] if old not in options[old] else [])]
                places.append((path, name, key, values))
                choices[key] = max(choices.get(key, 1), len(values))
    spaces = itertools.product(*(range(n) for n in choices.values()))
    for picks in itertools.islice(spaces, _MOST_CANDIDATES):
        pick = dict(zip(choices, picks, strict=True))
        assignment: dict[str, dict[str, int]] = {}
        for path, name, key, values in places:
            assignment.setdefault(path, {})[name] = values[min(pick[key], len(values) - 1)]
        yield assignment
