"""What counts as a unit, in models that store it differently."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import FalconConfig, FalconForCausalLM

import passes
from bpc.oneshot.batches import trace_example
from bpc.oneshot.sublayers import Sublayer, find_sublayers
from passes.structure.roles import find_roles
from tests.bpc.oneshot.models import made


def found(name: str) -> list[Sublayer]:
    model, batches = made(name)
    graph = passes.trace(model, trace_example(model, batches[0]))
    return list(find_sublayers(graph, find_roles(graph)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bert", [(8, 4), (1, 48)] * 2),
        ("gpt2", [(8, 4), (1, 128)] * 2),  # q, k and v in one matrix, stored (in, out)
        ("llama", [(16, 2), (1, 40)] * 2),  # two query heads per key head go together
        ("t5", [(8, 4), (1, 48)] * 2 + [(8, 4), (8, 4), (1, 48)] * 2),  # the decoder's two attentions
        ("vit", [(8, 4), (1, 48)] * 2),
    ],
)
def test_units_and_their_sizes(name: str, expected: list[tuple[int, int]]) -> None:
    layers = found(name)
    assert [(s.size, s.count) for s in layers] == expected
    assert [s.unit for s in layers] == ["head" if size > 1 else "dim" for size, _ in expected]
    for layer in layers:
        assert layer.weight in layer.parts
        assert layer.features == layer.size * layer.count


def test_layers_that_share_weights_are_one() -> None:
    attention, ffn = found("albert")
    assert len(attention.nodes) == len(ffn.nodes) == 3


def test_one_key_head_for_all_leaves_every_query_head_a_unit() -> None:
    torch.manual_seed(0)
    config = FalconConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, multi_query=True,
        new_decoder_architecture=False, parallel_attn=False, alibi=False,
    )  # fmt: skip
    model = FalconForCausalLM(config).eval()
    batch = {"input_ids": torch.randint(3, 50, (2, 7)), "attention_mask": torch.ones(2, 7, dtype=torch.long)}
    graph = passes.trace(model, trace_example(model, batch))
    attention = find_sublayers(graph, find_roles(graph))[0]
    assert (attention.size, attention.count) == (8, 4)


class Classifier(nn.Module):
    """Nothing but a head: linear, activation, linear, without a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.up(x).relu())


def test_heads_on_top_are_left_alone() -> None:
    graph = passes.trace(Classifier().eval(), {"x": torch.randn(3, 4)})
    assert find_sublayers(graph, find_roles(graph)) == ()
