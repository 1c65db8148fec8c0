"""Random small transformers under random masks: small equals masked, shrinking again changes nothing, more masks never
leave more, and plans are data."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import passes
from passes.plan.plan import Plan
from passes.report import count_parameters
from tests.passes.properties.strategies import MaskChoice, mask_choices, shapes
from tests.passes.properties.tiny import Shape, Transformer, build, inputs


def masked_copy(model: Transformer, shape: Shape, masks: dict[str, torch.Tensor]) -> nn.Module:
    """The eager model with masked weights: the reference, which no pass has touched."""
    copy = Transformer(shape).double().eval()
    copy.load_state_dict({name: value * masks.get(name, 1) for name, value in model.state_dict().items()})
    return copy


@given(shapes(), st.lists(mask_choices(), min_size=2, max_size=2))
def test_small_equals_masked_and_is_as_small_as_it_gets(shape: Shape, choices: list[MaskChoice]) -> None:
    model = build(shape)
    graph = passes.trace(model, inputs())
    for choice in choices:
        masks = choice.of(model)
        result = passes.shrink(graph, masks)
        reference = masked_copy(model, shape, masks)
        for seed, (batch, length) in enumerate([(1, 4), (2, 1), (4, 7)]):
            given_inputs = inputs(seed, batch, length)
            with torch.no_grad():
                expected, actual = reference(**given_inputs), result.graph_module(**given_inputs)
            scale = max(1.0, float(expected.abs().max()))
            assert float((expected - actual).abs().max()) <= 1e-10 * scale
        assert Plan.from_json(result.plan.to_json()) == result.plan
        again = passes.shrink(result.graph_module)
        assert (again.plan.cuts, again.plan.folds, again.plan.constants) == ((), (), ())
        assert count_parameters(again.graph_module) == count_parameters(result.graph_module)


@given(shapes(), mask_choices(), mask_choices())
def test_masking_more_never_leaves_more(shape: Shape, one: MaskChoice, other: MaskChoice) -> None:
    model = build(shape)
    graph = passes.trace(model, inputs())
    few, others = one.of(model), other.of(model)
    both = {n: few.get(n, torch.tensor(True)) & others.get(n, torch.tensor(True)) for n in few | others}
    sizes = [count_parameters(passes.shrink(graph, m, verify=False).graph_module) for m in (few, both)]
    assert sizes[1] <= sizes[0]
