"""Which dims of which operand go together, for layouts of several families."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import BloomConfig, BloomForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM, Qwen3Config, Qwen3ForCausalLM

import passes
from bpc.oneshot.batches import as_traced, trace_example
from bpc.oneshot.heads import find_heads
from bpc.oneshot.sublayers import find_sublayers
from passes.rewrite.turn_heads import TurnHeads
from passes.structure.roles import find_roles
from tests.bpc.oneshot.models import VOCABULARY, ids, made


def fused_by_head() -> nn.Module:
    return BloomForCausalLM(BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=1, n_head=4))


def fused_by_head_with_rotary_positions() -> nn.Module:
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=32,
    )  # fmt: skip
    return GPTNeoXForCausalLM(config)


def normalised_queries() -> nn.Module:
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, intermediate_size=48,
    )  # fmt: skip
    return Qwen3ForCausalLM(config)


BUILT = {f.__name__: f for f in (fused_by_head, fused_by_head_with_rotary_positions, normalised_queries)}
BOTH, VALUES = ("query", "key", "value", "output"), ("value", "output")


def built(name: str) -> tuple[Any, Any]:
    if name not in BUILT:
        model, batches = made(name)
        return model, batches[0]
    torch.manual_seed(0)
    model = BUILT[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(4)
    return model.eval(), {"input_ids": ids(4, 12, 0)}


@pytest.mark.parametrize(
    ("name", "operands"),
    [
        ("bert", BOTH),
        ("gpt2", BOTH),  # fused, side by side, transposed
        ("t5", BOTH),
        ("vit", BOTH),
        ("llama", VALUES),  # rotary positions, heads that share keys
        ("albert", None),  # layers that share weights
        ("fused_by_head", BOTH),
        ("fused_by_head_with_rotary_positions", VALUES),
        ("normalised_queries", VALUES),
    ],
)
def test_operands_that_may_be_turned_are_found(name: str, operands: tuple[str, ...] | None) -> None:
    model, batch = built(name)
    graph = passes.trace(model, trace_example(model, batch))
    roles, batch = find_roles(graph), as_traced(graph, batch)
    layers = find_sublayers(graph, roles)
    found = find_heads(graph, layers, roles, batch)
    attentions = [layer.name for layer in layers if layer.unit == "head"]
    assert list(found) == (attentions if operands else [])
    turns = []
    for number, heads in enumerate(found.values()):
        assert tuple(n for n in BOTH if getattr(heads, n) is not None) == operands
        generator = torch.Generator().manual_seed(number)
        shared, dims = heads.value.index.shape  # type: ignore[union-attr]
        values, keys = torch.randn(2, shared, dims, dims, dtype=torch.float64, generator=generator)
        turns += heads.turns(values, keys if heads.key is not None else None)
    # Not the matrices that the search tried: all heads of the whole model at once.
    got, wanted = TurnHeads(turns).run(graph).graph_module(**batch), graph(**batch)
    assert torch.allclose(got.logits, wanted.logits, atol=2e-3 * float(wanted.logits.detach().std()))
