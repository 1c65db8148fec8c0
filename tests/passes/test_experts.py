"""Stacked experts (Mixtral): one parameter holds the weights of all; rows are grouped by expert, or look theirs up.

A dim goes when it is dead in every expert; an expert's own dims would need weights of many sizes. Experts that are dead
in one layer go with their router. One dead expert among others stays: the router chooses it still.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf

import passes
from bpc.dense import DenseModel
from passes.ir.graph import get_attribute
from passes.structure.roles import find_roles
from tests.passes.families.base import scale_parameters, text
from tests.passes.families.decoders import CAUSAL

UP, DOWN, GATE = "mlp.experts.gate_up_proj", "mlp.experts.down_proj", "mlp.gate.weight"
UNITS = 48


def mixtral(experts: str, layers: int = 1, dtype: torch.dtype = torch.float64) -> Any:
    torch.manual_seed(0)
    config = hf.MixtralConfig(
        **CAUSAL | {"num_hidden_layers": layers}, num_local_experts=3, experts_implementation=experts
    )
    model = hf.MixtralForCausalLM._from_config(config, attn_implementation="sdpa").to(dtype).eval()
    scale_parameters(model)
    return model


def masks(layer: int = 0, more: int = 0) -> dict[str, torch.Tensor]:
    """Of the gated units: 3 and 5 dead in all experts by gate or up, 9 by its readers, as well as the last ``more``; 7
    and 10 in one expert only.
    """
    up, down = torch.ones(3, 2 * UNITS, 32, dtype=torch.bool), torch.ones(3, 32, UNITS, dtype=torch.bool)
    up[:, [3, UNITS + 5]], up[1, 7] = False, False
    down[:, :, 9], down[2, :, 10] = False, False
    down[:, :, UNITS - more :] = False
    return {f"model.layers.{layer}.{UP}": up, f"model.layers.{layer}.{DOWN}": down}


@pytest.mark.parametrize(("experts", "gone"), [("batched_mm", 9), ("grouped_mm", 8)])
def test_dims_that_are_dead_in_every_expert_go(experts: str, gone: int) -> None:
    """Grouped products take multiples of 8."""
    result = passes.shrink(passes.trace(mixtral(experts), dict(text())), masks(more=6))
    assert result.report.agreement is not None
    assert result.report.agreement.max_rel_diff <= 1e-5  # the router's softmax is float32
    small = {name: tuple(get_attribute(result.graph_module, f"model.layers.0.{name}").shape) for name in (UP, DOWN)}
    assert small == {UP: (3, 2 * (UNITS - gone), 32), DOWN: (3, 32, UNITS - gone)}
    assert "transformers.grouped_mm_fallback.default" not in result.report.unknown_operators


def test_a_layer_of_dead_experts_goes_and_one_dead_expert_stays() -> None:
    model = mixtral("grouped_mm", 2, torch.float32)
    weights = dict(model.named_parameters())
    with torch.no_grad():
        weights[f"model.layers.0.{DOWN}"].zero_()  # all of them
        weights[f"model.layers.1.{UP}"][1] = weights[f"model.layers.1.{DOWN}"][1] = 0  # one
    result = passes.shrink(passes.trace(model, dict(text())))
    left = {name for name, _ in result.graph_module.named_parameters()}
    assert not [name for name in left if "layers.0.mlp" in name]
    assert {f"model.layers.1.{name}" for name in (UP, DOWN, GATE)} <= left
    assert any("one matrix for each group of rows" in reason for reason in result.report.pinned.values())
    dense = DenseModel.from_shrink(result, model)
    with torch.no_grad():  # as transformers runs it, in kernels that a trace does not meet
        given = {"input_ids": text()["input_ids"], "attention_mask": torch.ones(2, 7, dtype=torch.long)}
        torch.testing.assert_close(dense.module(**given).logits, model(**given).logits, rtol=1e-5, atol=1e-5)
        assert dense.module.half()(**given).logits.isfinite().all()
    assert dict(dense.module.named_parameters())[f"model.layers.0.{DOWN}"].shape == (3, 32, 8)
    assert find_roles(result.graph_module).stacked == {
        f"model.layers.1.{UP}": (3, 96, 32),
        f"model.layers.1.{DOWN}": (3, 32, 48),
    }
