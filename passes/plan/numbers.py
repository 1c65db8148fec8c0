"""The Python numbers a forward reads (head counts, head sizes), found by their old values."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from torch import nn

from passes.plan.data import PlanData
from passes.plan.errors import ModuleViewError

Attributes = Mapping[str, Mapping[str, int]]


_MOST_CANDIDATES = 64


def changed_attributes(original: nn.Module, small: nn.Module) -> Attributes:
    """The numbers that differ in a small module, for its plan: applying that again needs no search."""
    found: dict[str, dict[str, int]] = {}
    new = dict(small.named_modules())
    for name, module in original.named_modules():
        now = _numbers(new[name]) if name in new else {}  # the small one may have lost a part, such as a pooler
        changed = {k: now[k] for k, v in _numbers(module).items() if now.get(k, v) != v}
        if changed:
            found[name] = changed
    return found


def _numbers(module: nn.Module) -> dict[str, int]:
    """The plain int attributes a forward may read."""
    return {k: v for k, v in module.__dict__.items() if type(v) is int and not k.startswith("_") and k != "layer_idx"}


def set_attributes(model: nn.Module, attributes: Attributes) -> None:
    for path, numbers in attributes.items():
        try:
            module = model.get_submodule(path)
        except AttributeError:
            raise ModuleViewError(f"{type(model).__name__} has no module {path!r}, which the plan sets") from None
        for name, number in numbers.items():
            setattr(module, name, number)


def _meanings(plan: PlanData, model: nn.Module) -> dict[str, dict[int, list[int]]]:
    """{module path: {old number: [what it may have to become]}}, for modules that own head projections."""
    found: dict[str, dict[int, list[int]]] = {}
    for view in plan.heads:
        options = found.setdefault(reading_module(model, view.parameter), {})
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


def reading_module(model: nn.Module, parameter: str) -> str:
    """The path of the module whose forward views a projection as heads: the one that owns the layer."""
    holder, _, _ = parameter.rpartition(".")
    try:
        owner = model.get_submodule(holder)
    except AttributeError:
        raise ModuleViewError(f"{type(model).__name__} has no {parameter!r}, which the plan views as heads") from None
    return holder if "weight" not in owner._parameters else holder.rpartition(".")[0]


def _add_group_counts(plan: PlanData, path: str, options: dict[int, list[int]]) -> None:
    """Query heads per key/value head: a quotient of two head counts of one module."""
    views = [v for v in plan.heads if v.parameter.startswith(path + ".")]
    for a, b in itertools.permutations(views, 2):
        if b.after[0] and a.before[0] % b.before[0] == 0 and a.after[0] % b.after[0] == 0 and a.before[0] > b.before[0]:
            new = a.after[0] // b.after[0]
            if new not in options.setdefault(a.before[0] // b.before[0], []):
                options[a.before[0] // b.before[0]].append(new)


def doubtful_number(plan: PlanData, model: nn.Module) -> str | None:
    """A number that equals one the plan changes."""
    for path, options in _meanings(plan, model).items():
        for name, old in _numbers(model.get_submodule(path)).items():
            if any(new != old for new in options.get(old, ())):
                return f"{path}.{name} = {old}"
    return None


def candidate_attributes(plan: PlanData, model: nn.Module) -> Iterator[Attributes]:
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
