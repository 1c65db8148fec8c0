"""Ladders: what is measured is what the outputs lose, and data decide the order."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import passes
from bpc.oneshot.batches import as_traced, trace_example
from bpc.oneshot.divergence import divergence
from bpc.oneshot.heads import find_heads
from bpc.oneshot.ladders import Setting, counts_of, measure_ladders, weight_of, widths_of
from bpc.oneshot.masks import narrow_keys
from bpc.oneshot.stream import Original
from bpc.oneshot.sublayers import Sublayer, find_sublayers
from passes.ir.graph import GraphTensors, copy_graph, set_numbers
from passes.rewrite.refit import refit
from passes.rewrite.turn_heads import TurnHeads
from passes.structure.roles import find_roles
from tests.bpc.oneshot.models import made

SETTING = Setting(probes=2, levels=(0.0, 0.5))


def measured(name: str, **options: Any) -> tuple[Any, tuple[Sublayer, ...], Any, Any]:
    model, batches = made(name)
    graph = passes.trace(model, trace_example(model, batches[0]))
    layers = find_sublayers(graph, find_roles(graph))
    batches = [as_traced(graph, batch) for batch in batches]
    return graph, layers, batches, measure_ladders(Original.of(graph), layers, batches, SETTING, **options)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "t5", "vit", "albert"])
def test_every_layer_has_an_order_and_its_losses(name: str) -> None:
    _, layers, _, (ladders, shared) = measured(name)
    assert ladders.keys() == {s.name for s in layers}
    assert shared.keys() == {s.name for s in layers if len(s.nodes) > 1}
    for layer in layers:
        ladder = ladders[layer.name]
        assert sorted(ladder.order) == list(range(layer.count))
        assert list(ladder.losses) == counts_of(layer, SETTING.levels)
        assert ladder.losses[0] > 0


def test_a_loss_is_that_of_the_model_with_this_layer_refitted() -> None:
    """By hand: inputs of the layer from a hook, the refit, a forward of the whole."""
    model, batches = made("bert")
    graph, layers, traced, (ladders, _) = measured("bert")
    layer = layers[1]
    seen: list[torch.Tensor] = []
    linear = model.get_submodule(layer.weight.removesuffix(".weight"))
    hook = linear.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        for batch in batches:
            model(**batch)
    hook.remove()
    x = torch.cat([value[batch["attention_mask"].bool()] for value, batch in zip(seen, batches, strict=True)])
    from passes.rewrite.refit import Moments

    moments = Moments(layer.features, 32)
    moments.add(x, linear(x).detach())
    kept = ladders[layer.name].kept(24).repeat_interleave(layer.size)
    weight, bias = refit(weight_of(GraphTensors(graph), layer), moments, kept, bias=True, ridge=SETTING.ridge)
    assert bias is not None
    changed = copy_graph(graph)
    set_numbers(changed, layer.weight, weight.float())
    set_numbers(changed, str(layer.bias), bias.float())
    with torch.no_grad():
        wanted = sum(divergence(graph(**b), changed(**b), b) for b in traced[:2]) / 2
    assert ladders[layer.name].losses[24] == pytest.approx(wanted, rel=1e-3)


def test_what_is_known_is_not_measured_again() -> None:
    told: list[str] = []
    *_, (ladders, _) = measured("bert", done=lambda layer, ladder: told.append(layer.name))
    half = {name: ladders[name] for name in list(ladders)[:2]}
    again: list[str] = []
    *_, (others, _) = measured("bert", known=half, done=lambda layer, ladder: again.append(layer.name))
    assert again == [name for name in told if name not in half]
    for name, ladder in ladders.items():
        assert others[name].order == ladder.order
        assert others[name].losses == pytest.approx(ladder.losses)


def test_widths_of_heads_lose_what_the_model_with_all_of_them_narrow_does() -> None:
    """By hand: the whole model turned into the basis, its last dims set to zero, a forward from the beginning."""
    model, batches = made("bert")
    graph = passes.trace(model, trace_example(model, batches[0]))
    roles = find_roles(graph)
    layers = find_sublayers(graph, roles)
    batches = [as_traced(graph, batch) for batch in batches]
    heads = find_heads(graph, layers, roles, batches[0])
    ladders, _ = measure_ladders(Original.of(graph), layers, batches, SETTING, heads=heads)
    layer = layers[2]
    own, ladder = heads[layer.name], ladders[layer.name]
    assert ladder.keys is not None
    assert ladder.values is not None
    assert list(ladder.keys.losses) == list(ladder.values.losses) == widths_of(own) == [2, 4, 6]
    turned = TurnHeads(own.turns(None, ladder.keys.basis)).run(graph).graph_module
    masks: dict[str, torch.Tensor] = {}
    narrow_keys(graph, own, 4, masks)
    assert own.query is not None
    assert sorted(masks) == sorted({own.query.weight, str(own.query.bias), own.key.weight, str(own.key.bias)})  # type: ignore[union-attr]
    changed = copy_graph(turned)
    for name, mask in masks.items():
        set_numbers(changed, name, changed.get_parameter(name).detach() * mask)
    with torch.no_grad():
        wanted = sum(divergence(graph(**b), changed(**b), b) for b in batches[:2]) / 2
    assert ladder.keys.losses[4] == pytest.approx(wanted, rel=1e-2)
    assert ladder.keys.losses[2] > ladder.keys.losses[6] > 0
    assert ladder.values.losses[2] > ladder.values.losses[6] > 0
    # Without the basis, the same number of the dims as they are loses more.
    plain = copy_graph(graph)
    for name, mask in masks.items():
        set_numbers(plain, name, plain.get_parameter(name).detach() * mask)
    with torch.no_grad():
        assert wanted < sum(divergence(graph(**b), plain(**b), b) for b in batches[:2]) / 2
