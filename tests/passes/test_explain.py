"""explain: each head and FFN dim, and the reason, on a model whose masks are written by hand."""

from __future__ import annotations

import json

import pytest
import torch
import transformers as hf
from torch import nn

import passes
from passes.explain import BlockExplanation, explain
from tests.passes.properties.tiny import ATTENTIONS, Shape, build, inputs

SHAPE = Shape(heads=4, kv_heads=4, head_dim=4, width=8, ffn=6)


def head_rows(*heads: int) -> torch.Tensor:
    """(16,) bool: False on the rows of the given heads."""
    return torch.tensor([row // 4 not in heads for row in range(16)])


@pytest.fixture
def masks() -> dict[str, torch.Tensor]:
    """Head 0: value masked, bias kept. 1: value and bias masked. 2: no query. 3: the output reads one dim."""
    output = torch.ones(8, 16, dtype=torch.bool)
    output[:, 13:] = False
    up = torch.ones(6, 8, dtype=torch.bool)
    up[:2] = False
    down = torch.ones(8, 6, dtype=torch.bool)
    down[:, 5] = False
    at, ffn = "layers.0.attention", "layers.0.ffn"
    return {
        f"{at}.v.weight": head_rows(0, 1)[:, None].expand(16, 8),
        f"{at}.v.bias": head_rows(1),
        f"{at}.q.weight": head_rows(2)[:, None].expand(16, 8),
        f"{at}.q.bias": head_rows(2),
        f"{at}.out.weight": output,
        f"{ffn}.up.weight": up,
        f"{ffn}.up.bias": torch.tensor([False, True, True, True, True, True]),
        f"{ffn}.down.weight": down,
    }


def found(block: BlockExplanation) -> list[tuple[str, str]]:
    return [(unit.state, unit.reason) for unit in block.units]


@pytest.mark.parametrize("attention", [a for a in ATTENTIONS if a != "bmm"])
def test_heads_and_dims_are_explained(masks: dict[str, torch.Tensor], attention: str) -> None:
    shape = Shape(**{**SHAPE.__dict__, "attention": attention})
    graph = passes.trace(build(shape), inputs())
    heads, dims = explain(graph, masks).blocks
    assert found(heads) == [
        ("constant", "all 4 value channels are constant, folded into the output bias"),
        ("dead", "all 4 value channels are always 0"),
        ("live", "q/k empty: attends uniformly"),
        ("live", "1 of 4 value channels live, padded to 4"),
    ]
    down = "layers.0.ffn.down.weight"
    assert found(dims) == [
        ("dead", "it is always 0"),
        ("constant", f"it is constant, folded into the bias of {down}"),
        *[("live", "")] * 3,
        ("dead", f"{down} ignores it"),
    ]


def test_what_goes_is_what_the_plan_cuts(masks: dict[str, torch.Tensor]) -> None:
    graph = passes.trace(build(SHAPE), inputs())
    plan = passes.plan_shrink(graph, masks)
    for block in explain(graph, masks).blocks:
        shape = (8, sum(unit.size for unit in block.units))
        assert plan.small_shape(block.weight, shape)[1] == sum(unit.kept for unit in block.units)


def test_the_text_groups_and_the_data_is_json(masks: dict[str, torch.Tensor]) -> None:
    result = explain(passes.trace(build(SHAPE), inputs()), masks)
    text = str(result)
    assert "attention.0 (layers.0.attention.out.weight): 4 heads: 2 live, 1 constant, 1 dead" in text
    assert "  dims 2-4: live" in text
    assert "  head 2: live — q/k empty: attends uniformly" in text
    assert json.loads(json.dumps(result.to_data()))["blocks"][0]["units"][1]["state"] == "dead"


class NormedAttention(nn.Module):
    """The heads' outputs are normalised together before the output projection reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.norm = nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (f(x).view(x.shape[0], x.shape[1], 2, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return x + self.out(self.norm(mixed.transpose(1, 2).reshape(x.shape)))


def test_pinned_heads_give_the_reason() -> None:
    mask = torch.ones(8, 8, dtype=torch.bool)
    mask[:, :4] = False
    graph = passes.trace(NormedAttention(), torch.randn(2, 3, 8))
    first, second = explain(graph, {"out.weight": mask}).blocks[0].units
    assert (first.state, first.kept) == ("pinned", 4)
    assert first.reason == "dead (the output projection ignores it), but normalised by layer_norm"
    assert second.state == "live"


def test_real_models_have_every_block_explained() -> None:
    config = hf.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    )
    graph = passes.trace(hf.BertModel(config), {"input_ids": torch.ones(2, 8, dtype=torch.long)})
    result = explain(graph)
    assert [(b.name, len(b.units)) for b in result.blocks] == [
        ("attention.0", 4),
        ("attention.1", 4),
        ("ffn.0", 64),
        ("ffn.1", 64),
    ]
    assert result.skipped == ()
    assert all(unit.state == "live" for block in result.blocks for unit in block.units)
