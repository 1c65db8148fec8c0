"""Weights that share scores."""

from __future__ import annotations

import pytest

from bpc.spec import SpecError
from passes.structure.roles import Roles
from tests.bpc.spec.plans import DIM, HEADS, by_role, plans


def test_paired_ffn_shares_one_score_per_dim(bert: Roles) -> None:
    found = plans(bert, DIM)
    assert len(found) == 4
    up, down = (found[f"bert.encoder.layer.0.{n}.dense.weight"] for n in ("intermediate", "output"))
    assert (up.block, down.block) == ((1, 32), (32, 1))
    assert up.scores == down.scores
    assert (up.transposed, down.transposed) == (False, True)
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
    assert (down.tiles, down.score_shape, down.scores) == (1, (64, 1), fused.scores)


def test_paired_heads_share_one_score_per_head(bert: Roles) -> None:
    found = by_role(plans(bert, HEADS | {"paired": True}))
    assert {p.scores for p in found.values()} == {"attention.0"}
    assert {p.score_shape for p in found.values()} == {(4, 1)}
    assert found["attention.output"].transposed


def test_pairing_refuses_heads_of_different_number(llama: Roles) -> None:
    with pytest.raises(SpecError, match=r"different numbers of blocks \(.*q_proj\.weight: 4, .*k_proj\.weight: 2"):
        plans(llama, HEADS | {"paired": True})


def test_pairing_refuses_blocks_that_are_not_whole_rows(bert: Roles) -> None:
    with pytest.raises(
        SpecError, match=r"must span whole rows.*intermediate\.dense\.weight \(ffn\.up\) it covers 16 of 32"
    ):
        plans(bert, DIM | {"block": [1, 16]})
