"""Weights that share scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bpc.program import compile
from bpc.scores.plan import MaskPlan
from bpc.spec import SpecError
from passes.driver import shrink
from passes.structure.roles import Roles
from tests.bpc.spec.conftest import CAUSAL, ids, roles_of
from tests.bpc.spec.plans import DIM, DIMS, HEADS, by_role, plans


def test_paired_ffn_shares_one_score_per_dim(bert: Roles) -> None:
    found = plans(bert, DIM)
    assert len(found) == 4
    up, down = (found[f"bert.encoder.layer.0.{n}.dense.weight"] for n in ("intermediate", "output"))
    assert (up.block, down.block) == ((1, 32), (32, 1))
    assert up.scores == down.scores
    assert up.units == down.units == tuple(range(64))
    assert up.score_shape == down.score_shape == (64, 1)
    assert len({p.scores for p in found.values()}) == 2


def test_gated_ffns_share_scores_three_ways(llama: Roles) -> None:
    found = by_role(plans(llama, DIM))
    assert {p.scores for p in found.values()} == {"ffn.0"}
    assert {p.score_shape for p in found.values()} == {(64, 1)}
    assert {p.bias for p in found.values()} == {None}


def test_fused_gates_share_scores_by_tiling(phi3: Roles) -> None:
    found = by_role(plans(phi3, DIM))
    fused, down = found["ffn.gate_up"], found["ffn.down"]
    assert (fused.grid, fused.tiles, fused.score_shape) == ((128, 1), 2, (64, 1))
    assert fused.units == down.units * 2
    assert (down.tiles, down.score_shape, down.scores) == (1, (64, 1), fused.scores)


def test_paired_heads_share_one_score_per_head(bert: Roles) -> None:
    found = by_role(plans(bert, HEADS | {"paired": True}))
    assert {p.scores for p in found.values()} == {"attention.0"}
    assert {p.score_shape for p in found.values()} == {(4, 1)}


def test_heads_that_share_keys_and_values_are_one_unit(llama: Roles) -> None:
    found = by_role(plans(llama, HEADS | {"paired": True}))
    units = {role: plan.units for role, plan in found.items()}
    assert units == {
        "attention.query": (0, 0, 1, 1),
        "attention.key": (0, 1),
        "attention.value": (0, 1),
        "attention.output": (0, 0, 1, 1),
    }
    assert {p.score_shape for p in found.values()} == {(2, 1)}


def test_keys_that_all_heads_share_have_no_part_in_a_head() -> None:
    model = hf.LlamaModel(hf.LlamaConfig(**CAUSAL | {"num_key_value_heads": 1}))
    found = by_role(plans(roles_of(model, ids()), HEADS | {"paired": True}))
    assert {role: plan.units for role, plan in found.items()} == {
        "attention.query": (0, 1, 2, 3),
        "attention.output": (0, 1, 2, 3),
    }


def test_fused_projections_share_scores_with_the_output(gpt2: Roles, phi3: Roles) -> None:
    fused = by_role(plans(gpt2, HEADS | {"paired": True}))["attention.qkv"]
    assert (fused.block, fused.units) == ((32, 8), (0, 1, 2, 3) * 3)  # side by side, stored transposed
    found = by_role(plans(phi3, HEADS | {"paired": True}))
    assert found["attention.qkv"].units == (0, 0, 1, 1, 0, 1, 0, 1)
    assert found["attention.output"].units == (0, 0, 1, 1)


def test_blocks_of_several_heads(bert: Roles) -> None:
    found = by_role(plans(bert, HEADS | {"paired": True, "block": [16, "in_features"]}))
    assert {p.units for p in found.values()} == {(0, 1)}


class Interleaved(nn.Module):
    """Rows of the fused projection: head by head, each with its query, key and value."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(*x.shape[:2], 2, 3, 4).permute(3, 0, 2, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return x + self.out(mixed.transpose(1, 2).flatten(2))


class Narrow(nn.Module):
    """Values half as wide as queries."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(*sizes) for sizes in ((8, 32), (8, 32), (8, 16), (16, 8)))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (linear(x).unflatten(-1, (2, -1)).transpose(1, 2) for linear in (self.q, self.k, self.v))
        return x + self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def test_projections_fused_head_by_head() -> None:
    roles = roles_of(Interleaved(), (torch.randn(2, 3, 8),))
    found = by_role(plans(roles, HEADS | {"paired": True}))
    assert found["attention.qkv"].units == (0, 0, 0, 1, 1, 1)
    dims = by_role(plans(roles, DIMS))
    first, second = range(4), range(4, 8)
    assert dims["attention.qkv"].units == (*first, *first, *range(8, 12), *second, *second, *range(12, 16))
    assert dims["attention.output"].units == tuple(range(8, 16))


def test_dims_of_queries_go_with_those_of_keys_and_dims_of_values_with_columns(bert: Roles) -> None:
    found = by_role(plans(bert, DIMS))
    scored, mixed = tuple(range(32)), tuple(range(32, 64))
    assert {role: plan.units for role, plan in found.items()} == {
        "attention.query": scored,
        "attention.key": scored,
        "attention.value": mixed,
        "attention.output": mixed,
    }
    assert {p.stretches for p in found.values()} == {((0, 4, 8), (32, 4, 8))}
    assert {p.score_shape for p in found.values()} == {(64, 1)}


def test_dims_that_rotate_into_each_other_go_together_and_in_all_heads(llama: Roles) -> None:
    found = by_role(plans(llama, DIMS))
    assert found["attention.query"].units == (0, 1, 2, 3, 0, 1, 2, 3) * 4
    assert found["attention.key"].units == (0, 1, 2, 3, 0, 1, 2, 3) * 2
    values = torch.arange(4, 20).view(2, 8)
    assert found["attention.value"].units == tuple(values.flatten().tolist())
    assert found["attention.output"].units == tuple(values.repeat_interleave(2, 0).flatten().tolist())
    assert {p.stretches for p in found.values()} == {((0, 1, 4), (4, 2, 8))}


def test_dims_of_normalised_queries_stay() -> None:
    model = hf.Qwen3Model(hf.Qwen3Config(**CAUSAL, head_dim=8))
    roles = roles_of(model, ids())
    assert set(by_role(plans(roles, DIMS))) == {"attention.value", "attention.output"}
    with pytest.raises(SpecError, match="none of the dims can go, for normalisations inside heads"):
        plans(roles, DIMS | {"roles": ["attention.query", "attention.key"]})


def test_layers_that_share_weights_share_scores(albert: Roles) -> None:
    found = plans(albert, HEADS | {"paired": True}, DIM)
    assert {p.unit_count for p in found.values()} == {4, 64}
    assert len({p.scores for p in found.values()}) == 2


def test_pairing_refuses_what_is_no_head_and_no_part_of_one(bert: Roles) -> None:
    with pytest.raises(SpecError, match="blocks of 3 do not divide the 32 output features of bert"):
        plans(bert, DIMS | {"block": [3, "in_features"]})
    with pytest.raises(SpecError, match="a block of 16 features is neither whole heads of all its weights nor divides"):
        plans(roles_of(Narrow(), (torch.randn(2, 3, 8),)), DIMS | {"block": [16, "in_features"]})


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "gpt2": lambda: hf.GPT2Model(hf.GPT2Config(vocab_size=50, n_embd=32, n_layer=1, n_head=4, use_cache=False)),
    "phi3": lambda: hf.Phi3Model(hf.Phi3Config(**CAUSAL)),
    "llama": lambda: hf.LlamaModel(hf.LlamaConfig(**CAUSAL)),
    "modernbert": lambda: hf.ModernBertModel(
        hf.ModernBertConfig(**{k: v for k, v in CAUSAL.items() if k not in ("num_key_value_heads", "use_cache")})
    ),
}


@pytest.mark.parametrize("rule", [HEADS | {"paired": True}, DIMS], ids=["heads", "dims"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_small_model_is_the_masked_one_and_has_what_units_are_left(family: str, rule: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = FAMILIES[family]().double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.0 if parameter.dim() > 1 else 0.5, 0.3)
    program = compile(model, {"rules": [rule]}, ids())
    graph, inputs = program.plain_graph(), ids()
    (key,) = {p.scores for p in program.plans}
    scores = program.mask_set.scores[key.replace(".", "/")]
    value = next(p for p in program.plans if p.role in ("attention.value", "attention.qkv"))

    @settings(max_examples=2)
    @given(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    def check(kept: list[bool]) -> None:
        alive = torch.tensor(kept)
        with torch.no_grad():
            scores[:, 0] = torch.where(alive, 5.0, -5.0)
            masked = program.module(**inputs).last_hidden_state
        result = shrink(graph, program.masks(), verify=False)
        small = result.graph_module(**inputs)
        torch.testing.assert_close(next(iter(small.values())), masked)
        left = dict(result.graph_module.named_parameters())
        rows = left[value.weight].shape[value.out_dim] if value.weight in left else 0
        assert rows == _expected_rows(value, alive)

    check()


def _expected_rows(plan: MaskPlan, alive: Tensor) -> int:
    """Whole heads that live; of dims, as many of each live head as the fullest has, queries and keys beside values."""
    assert plan.units is not None
    size = plan.block[plan.out_dim]
    if not plan.stretches:
        return size * int(alive[list(plan.units)].sum())
    scored, mixed = (alive[start : start + h * d].view(h, d) for start, h, d in plan.stretches)
    heads = mixed.any(1)
    if not bool(heads.any()):
        return 0
    rotates = scored.shape[0] == 1
    widest = int(max(1, scored[:, :].sum() if rotates else scored[heads].sum(1).max())) * (2 if rotates else 1)
    width = int(mixed[heads].sum(1).max())
    if plan.role == "attention.value":
        return int(heads.sum()) * width
    queries = plan.heads
    assert queries is not None
    return int(heads.sum()) * (widest * (1 + queries // len(heads)) + width)


def test_pairing_refuses_blocks_that_are_not_whole_rows(bert: Roles) -> None:
    with pytest.raises(
        SpecError, match=r"must span whole rows.*intermediate\.dense\.weight \(ffn\.up\) it covers 16 of 32"
    ):
        plans(bert, DIM | {"block": [1, 16]})
