"""The module view of every family: the plan cuts the user's own modules, which then compute what the graph does.

`COARSER` says which families' forwards cannot follow the finest plan, and how far they can; those refusals are asserted
as well, with their reason.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping

import pytest
import torch
from torch import nn

import passes
from passes.driver import TOLERANCE, least_precise
from passes.options import Granularity
from passes.plan.apply import apply_plan
from passes.plan.errors import ModuleViewError
from passes.plan.plan import ModuleView, Plan
from tests.passes.families import FAMILIES, Family
from tests.passes.family_masks import Draft, Masks, draw, masked
from tests.passes.family_structure import Parameters
from tests.passes.test_architectures import distance, eager, tensors, traced

# Most forwards view q, k and v with one head size ("even"). Where the scale of the scores is computed from the head
# size in every forward, or head sizes are fixed by the width of the model or by literals, heads have to stay whole.
COARSER: Mapping[str, Granularity] = {
    **dict.fromkeys(FAMILIES, "even"),
    **dict.fromkeys(("albert", "xlnet", "experts", "mixer"), "dims"),
    **dict.fromkeys(("mpnet", "deberta-v2", "modernbert"), "heads"),  # scale from the head size
    **dict.fromkeys(("nn-encoder", "nn-decoder", "nn-attention"), "heads"),  # embed_dim is the model's width
    "timm": "heads",  # literals
}
# Their weights are no linear layer's, or are read past the layer: what the forward needs stays there.
PACKED = ("nn-encoder", "nn-decoder", "nn-attention")
RAGGED = (
    "bert", "roberta", "distilbert", "electra", "mpnet", "deberta-v2", "modernbert", "gpt2", "llama", "gemma2", "t5",
    "bart", "whisper", "vit",
)  # fmt: skip
REASON = (
    r"A forward has one head size, but .* needs \d+ in .*\.(weight|bias) and \d+ in .*\.(weight|bias)\."
    r"|a head count or head size that the plan changes \(\d+ heads of \d+ in .*\.(weight|bias)"
)


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", FAMILIES)
def test_the_plan_applies_to_the_module_or_says_what_it_cannot_follow(name: str) -> None:
    family = FAMILIES[name]
    model, inputs, graph = traced(name, family.forms[0])
    parameters = {n: p.detach() for n, p in model.named_parameters()}
    masks = draw("rows", family, parameters)
    tolerance = TOLERANCE[least_precise(graph)]
    plan = passes.shrink(graph, masks, verify=False).plan
    assert plan.origin is not None
    example = plan.origin.example()
    if COARSER[name] != "dims":
        with pytest.raises(ModuleViewError, match=REASON) as refusal:
            apply_plan(plan, model, masks, example)
        assert "use the graph view" in str(refusal.value).lower()
    view = plan.view(model)
    assert view.granularity == COARSER[name]
    assert bool(view.refusal) == (COARSER[name] != "dims")
    small = view.module
    with torch.no_grad():
        outputs = tensors(small(**inputs))
    assert distance(eager(model, inputs, masked(parameters, masks)), outputs) <= tolerance
    assert size(small) < size(model) or not family.feed_forward  # where nothing but whole heads goes
    check_size(view, plan, name in PACKED)
    read = Plan.from_json(view.plan.to_json())
    with torch.no_grad():
        again = tensors(read.apply_to(model, masks)(**inputs))
    assert distance(outputs, again) == 0
    assert all(torch.equal(p, parameters[n]) for n, p in model.named_parameters())
    if name in RAGGED:
        masks = ragged(family, parameters)
        plan = passes.shrink(graph, masks, verify=False).plan
        view = plan.view(model)
        with torch.no_grad():
            outputs = tensors(view.module(**inputs))
        assert distance(eager(model, inputs, masked(parameters, masks)), outputs) <= tolerance
        check_size(view, plan, packed=False)
        assert "its forward runs what the graph has lost" in view.surplus


def check_size(view: ModuleView, plan: Plan, packed: bool) -> None:
    """Every parameter that the graph has too is as large as there, and what the module holds besides is told."""
    assert plan.origin is not None
    sizes = plan.origin.sizes
    held = {plan.aliases.get(name, name): p.numel() for name, p in view.module.named_parameters()}
    larger = {name: n - sizes[name] for name, n in held.items() if n > sizes.get(name, n)}
    besides = sum(n for name, n in held.items() if name not in sizes)
    assert bool(larger) == packed, larger
    assert ("its forward needs more of a weight" in view.surplus) == packed
    told = f"{besides + sum(larger.values()):,} more than the graph" if besides or larger else ""
    assert view.surplus.partition(":")[0] == told


def ragged(family: Family, parameters: Parameters) -> Masks:
    """Other heads in each layer, other dims in each head, and a last attention that is dead."""
    draft = Draft(parameters)
    for number, unit in enumerate(family.attention):
        values = draft.of(unit.value)
        dims = len(values) // unit.kv_heads
        dead = number % unit.kv_heads
        for head in range(unit.kv_heads):
            values[head * dims : head * dims + 1 + (head + number) % 3] = False
        values[dead * dims : (dead + 1) * dims] = False
        if number + 1 == len(family.attention):
            values[:] = False
    for number, feed in enumerate(family.feed_forward):
        draft.of(feed.down)[:, : 20 + 3 * number] = False
    return draft.masks


def test_heads_that_no_layer_needs_go_under_a_shared_table() -> None:
    """T5's bias is computed once, for all layers: the module keeps the union of their heads."""
    family = FAMILIES["t5"]
    model, inputs, graph = traced("t5", "sdpa")
    masks = {}
    for number, unit in enumerate(family.attention[:2]):
        masks[unit.value.weight] = torch.arange(32).unsqueeze(1).expand(32, 32) >= (8 if number else 16)
    small = passes.shrink(graph, masks, verify=False, granularity="even").plan.apply_to(model, masks)
    assert [small.get_parameter(unit.query.weight).shape for unit in family.attention[:2]] == [(24, 32), (24, 32)]
    assert small.get_parameter(family.attention[0].tables[0][0]).shape == (32, 3)
    zeroed = masked({n: p.detach() for n, p in model.named_parameters()}, masks)
    with torch.no_grad():
        assert distance(eager(model, inputs, zeroed), tensors(small(**inputs))) <= TOLERANCE[least_precise(graph)]


def test_numbers_that_nothing_says_are_refused() -> None:
    """A plan read from JSON cannot know which numbers follow."""
    family = FAMILIES["bert"]
    model, _, graph = traced("bert", "sdpa")
    plan = passes.shrink(graph, draw("heads", family, dict(model.named_parameters())), verify=False).plan
    with pytest.raises(ModuleViewError, match=r"attention.self.num_attention_heads = 4 has to follow"):
        Plan.from_json(plan.to_json()).apply_to(model)


def test_a_plan_remembers_the_masks_it_was_made_with() -> None:
    """And says that masks are missing where it is told of none: unmasked weights make another function."""
    family = FAMILIES["bert"]
    model, inputs, graph = traced("bert", "sdpa")
    parameters = {n: p.detach() for n, p in model.named_parameters()}
    masks = draw("rows", family, parameters)
    plan = passes.shrink(graph, masks, verify=False).plan
    expected = eager(model, inputs, masked(parameters, masks))
    with torch.no_grad():
        assert distance(expected, tensors(plan.apply_to(model)(**inputs))) <= TOLERANCE[least_precise(graph)]
    plan = passes.shrink(graph, draw("heads", family, parameters), verify=False).plan
    with pytest.raises(ModuleViewError, match=r"output differs from the graph's.*give masks="):
        plan.apply_to(model, masks={})


class TiedInFront(nn.Module):
    """One weight under two names, in front of attention whose head sizes its forward fixes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.first(x).tanh())
        return self.attention(x, x, x, need_weights=False)[0]


@pytest.mark.parametrize("kept", [True, False])
def test_coarser_plans_mask_tied_weights_under_every_name(kept: bool) -> None:
    """With the traced graph still there, and without it."""
    model = TiedInFront().double().eval()
    rows, heads = torch.ones(6, 6, dtype=torch.bool), torch.ones(18, 6, dtype=torch.bool)
    rows[4], heads[[2, 5]] = False, False  # a dim of each head of q
    masks = {"first.weight": rows, "second.weight": rows, "attention.in_proj_weight": heads}
    graph = passes.trace(model, torch.randn(3, 5, 6).double())
    plan = passes.shrink(graph, masks, verify=False).plan
    if not kept:
        del graph
        gc.collect()
    view = plan.view(model)
    assert view.granularity != "dims"
    x = torch.randn(2, 7, 6).double()
    with torch.no_grad():
        expected = eager(model, {"x": x}, masked(dict(model.named_parameters()), masks))
        torch.testing.assert_close(view.module(x), expected[0], rtol=1e-10, atol=1e-10)
