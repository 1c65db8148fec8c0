"""A traced two-layer BERT, masks for its first layer, and what shrinking makes of both."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx
from transformers import BertConfig, BertModel

import passes
from bpc.report.layers import Summary
from bpc.report.summary import summarize

HEADS, DIM, FFN = 4, 8, 24


@pytest.fixture(scope="package")
def graph() -> fx.GraphModule:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30, hidden_size=32, num_hidden_layers=2, num_attention_heads=HEADS, intermediate_size=FFN,
        max_position_embeddings=16,
    )  # fmt: skip
    return passes.trace(BertModel(config, add_pooling_layer=False).eval(), {"input_ids": torch.arange(12).view(2, 6)})


@pytest.fixture(scope="package")
def masks() -> dict[str, Tensor]:
    """Layer 0: heads 1 and 2 live, half of their value weights pruned; FFN dims 0-4 live. Layer 1: untouched."""
    live = torch.zeros(HEADS, dtype=torch.bool)
    live[1:3] = True
    rows = live.repeat_interleave(DIM)
    attention = {f"encoder.layer.0.attention.self.{n}": rows for n in ("query", "key", "value")}
    found = {f"{n}.weight": r[:, None].expand(32, 32).clone() for n, r in attention.items()}
    found |= {f"{n}.bias": r for n, r in attention.items()}
    found["encoder.layer.0.attention.self.value.weight"][:, 16:] = False
    dims = torch.arange(FFN) < 5
    found["encoder.layer.0.intermediate.dense.weight"] = dims[:, None].expand(FFN, 32).clone()
    found["encoder.layer.0.intermediate.dense.bias"] = dims
    found["encoder.layer.0.output.dense.weight"] = dims.expand(32, FFN).clone()
    return found


@pytest.fixture(scope="package")
def result(graph: fx.GraphModule, masks: dict[str, Tensor]) -> passes.ShrinkResult:
    return passes.shrink(graph, masks)


@pytest.fixture(params=["compiled", "estimated"])
def summary(
    request: pytest.FixtureRequest, graph: fx.GraphModule, masks: dict[str, Tensor], result: passes.ShrinkResult
) -> Summary:
    return summarize(graph, masks, result.plan if request.param == "compiled" else None)
