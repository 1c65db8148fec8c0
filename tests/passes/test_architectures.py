"""Every architecture, both attention forms, several kinds of masks: the small graph computes what the masked model
does, and has exactly the shapes that the theory predicts.

The reference is the eager model with masked weights (and, inside `shrink`, the masked graph on fresh inputs of several
shapes). The predicted shapes come from `family_structure`, which knows masks and structure but no graph.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import fx, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

import passes
from passes.driver import TOLERANCE, least_precise
from passes.ir.graph import get_attribute
from passes.ir.info import trace_info
from tests.passes.families import FAMILIES, Family, make
from tests.passes.family_masks import KINDS, draw, masked
from tests.passes.family_structure import predict_shapes

Traced = tuple[nn.Module, dict[str, Any], fx.GraphModule]


def traced(name: str, form: str, dtype: torch.dtype = torch.float64) -> Traced:
    model, inputs = make(FAMILIES[name], form, dtype)
    return model, inputs, passes.trace(model, inputs)


def tensors(result: Any) -> list[torch.Tensor]:
    return [t for t in pytree.tree_leaves(result) if isinstance(t, torch.Tensor)]


def eager(model: nn.Module, inputs: dict[str, Any], parameters: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """The untraced model with other numbers in its parameters."""
    with torch.no_grad():
        return tensors(functional_call(model, parameters, kwargs=inputs))


def distance(expected: list[torch.Tensor], actual: list[torch.Tensor]) -> float:
    """Largest difference relative to the outputs' scale."""
    assert [t.shape for t in expected] == [t.shape for t in actual]
    return max(float((a - b).abs().max() / a.abs().max().clamp(min=1.0)) for a, b in zip(expected, actual, strict=True))


def shapes_of(graph_module: fx.GraphModule) -> dict[str, tuple[int, ...]]:
    names = {str(n.target) for n in graph_module.graph.nodes if n.op == "get_attr"}
    return {name: tuple(get_attribute(graph_module, name).shape) for name in names}


def unit_parameters(family: Family) -> set[str | None]:
    parts = [p for unit in (*family.attention, *family.feed_forward) for p in unit.parts]
    return {p.weight for p in parts} | {p.bias for p in parts}


def check_shapes(family: Family, traced_shapes: Any, small: fx.GraphModule, parameters: Any, aliases: Any) -> None:
    """The small graph's parameters have the predicted shapes; what it has besides are vectors (constants, indices)."""
    predicted = predict_shapes(parameters, family.attention, family.feed_forward)
    found, in_units = shapes_of(small), unit_parameters(family)
    expected = {}
    for name, shape in predicted.items():
        used = aliases.get(name, name)
        gone = shape is None or (used not in found and name not in in_units)  # a norm before a sublayer that died
        if used in traced_shapes and not gone:
            expected[used] = shape
    assert {name: found.get(name) for name in expected} == expected
    assert not {name for name, shape in predicted.items() if shape is None} & found.keys()
    new = {name: shape for name, shape in found.items() if name not in traced_shapes}
    assert all(sum(size > 1 for size in shape) <= 1 for shape in new.values()), new


def check_report(result: passes.ShrinkResult, parameters: Any) -> None:
    """Every row or column (or slice along another dim) that stays although it is zero is named."""
    found, keeps = shapes_of(result.graph_module), {cut.parameter: cut.keep for cut in result.plan.cuts}
    for name, weight in parameters.items():
        name = result.plan.aliases.get(name, name)
        for dim in range(weight.dim() if weight.dim() > 1 and name in found else 0):
            zero = (weight == 0).transpose(0, dim).flatten(1).all(1)
            kept = list(keeps.get(name, {}).get(dim, range(len(zero))))
            if bool(zero[kept].any()) and len(kept) == found[name][dim]:
                assert any(key.startswith(f"{name}[{dim}] ") for key in result.report.pinned), (name, dim)


def check(family: Family, kind: str, model: nn.Module, inputs: dict[str, Any], graph: fx.GraphModule) -> None:
    parameters = {n: p.detach() for n, p in model.named_parameters()}
    masks = draw(kind, family, parameters)
    result = passes.shrink(graph, masks)
    tolerance = TOLERANCE[least_precise(graph)]
    zeroed = masked(parameters, masks)
    with torch.no_grad():
        actual = tensors(result.graph_module(**inputs))
    assert distance(eager(model, inputs, zeroed), actual) <= tolerance, kind
    assert result.report.agreement is not None
    assert result.report.agreement.max_rel_diff <= tolerance, kind
    check_shapes(family, shapes_of(graph), result.graph_module, zeroed, trace_info(graph).aliases)
    check_report(result, zeroed)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A family's first form with three kinds of masks, its second with one, other kinds for the next family.

    With --every-pair, and for the four that most models resemble, all kinds for the first form; for the second those
    that differ most in how attention is cut.
    """
    if "kinds" not in metafunc.fixturenames:
        return
    every = metafunc.config.getoption("--every-pair")
    cases = []
    for i, (name, family) in enumerate(FAMILIES.items()):
        for form in family.forms:
            kinds = tuple(KINDS) if form == family.forms[0] else ("rows", "layer")
            some = 3 if form == family.forms[0] else 1
            if not every and name not in ("bert", "t5", "llama", "vit"):
                kinds = tuple(kinds[(i + j) % len(kinds)] for j in range(some))
            cases.append(pytest.param(name, form, kinds, id=f"{name}-{form}"))
    metafunc.parametrize(("name", "form", "kinds"), cases)


def test_small_equals_masked_and_has_the_predicted_shapes(name: str, form: str, kinds: tuple[str, ...]) -> None:
    model, inputs, graph = traced(name, form)
    for kind in kinds:  # one trace serves all kinds
        check(FAMILIES[name], kind, model, inputs, graph)


@pytest.mark.parametrize("name", ["bert", "t5", "gpt2", "llama", "modernbert", "vit", "nn-decoder"])
def test_float32(name: str) -> None:
    family = FAMILIES[name]
    check(family, "blocks", *traced(name, family.forms[0], torch.float32))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_moves_the_output(name: str) -> None:
    """A suite whose weights do not matter proves nothing (trap 20): zero each parameter, and the output changes."""
    family = FAMILIES[name]
    model, inputs = make(family, family.forms[0])
    parameters = {n: p.detach() for n, p in model.named_parameters()}
    reference = eager(model, inputs, parameters)
    still = set()
    for parameter, value in parameters.items():
        changed = eager(model, inputs, parameters | {parameter: torch.zeros_like(value)})
        if distance(reference, changed) < 1e-4:
            still.add(parameter)
    expected = {n for n in parameters if n.endswith(family.inert)} if family.inert else set()
    assert still == expected
