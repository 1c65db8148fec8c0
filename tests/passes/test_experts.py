"""Stacked experts (Mixtral): one parameter holds the weights of all, and each token looks its experts up.

A dim goes when it is dead in every expert; an expert's own dims would need weights of many sizes. Where experts
run inside an operator that nothing is known about, everything stays, and the report names the operator.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf

import passes
from passes.ir.graph import get_attribute
from tests.passes.families.base import scale_parameters, text
from tests.passes.families.decoders import CAUSAL

UP, DOWN = "model.layers.0.mlp.experts.gate_up_proj", "model.layers.0.mlp.experts.down_proj"
UNITS = 48


def mixtral(experts: str) -> Any:
    torch.manual_seed(0)
    config = hf.MixtralConfig(**CAUSAL | {"num_hidden_layers": 1}, num_local_experts=3, experts_implementation=experts)
    model = hf.MixtralForCausalLM._from_config(config, attn_implementation="sdpa").double().eval()
    scale_parameters(model)
    return model


def masks() -> dict[str, torch.Tensor]:
    """Of the gated units: 3 and 5 dead in all experts by gate or up, 9 by its readers; 7 and 10 in one expert only."""
    up, down = torch.ones(3, 2 * UNITS, 32, dtype=torch.bool), torch.ones(3, 32, UNITS, dtype=torch.bool)
    up[:, [3, UNITS + 5]], up[1, 7] = False, False
    down[:, :, 9], down[2, :, 10] = False, False
    return {UP: up, DOWN: down}


@pytest.mark.parametrize("experts", ["batched_mm", "grouped_mm"])
def test_dims_that_are_dead_in_every_expert_go(experts: str) -> None:
    model, drawn = mixtral(experts), masks()
    result = passes.shrink(passes.trace(model, dict(text())), drawn)
    assert result.report.agreement is not None
    assert result.report.agreement.max_rel_diff <= 1e-5  # the router's softmax is float32
    small = {name: tuple(get_attribute(result.graph_module, name).shape) for name in (UP, DOWN)}
    if experts == "batched_mm":
        assert small == {UP: (3, 2 * (UNITS - 3), 32), DOWN: (3, 32, UNITS - 3)}
    else:
        assert small == {UP: (3, 2 * UNITS, 32), DOWN: (3, 32, UNITS)}
        assert "transformers.grouped_mm_fallback.default" in result.report.unknown_operators
        unknown = "pinned: used by an operator without a transfer rule"
        assert result.report.pinned[f"{UP}[1] (2 of {2 * UNITS})"] == unknown
