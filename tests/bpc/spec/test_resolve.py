"""Rules meet models: which weights, which blocks in the stored layout, which scores are shared."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import passes
from bpc.spec import SpecError, load_spec, resolve
from passes.structure.roles import Roles, find_roles
from tests.bpc.spec.plans import DIM, HEADS, by_role, plans
from tests.passes.families import FAMILIES, make


def test_struct_cuts_heads_from_rows_and_from_the_outputs_columns(bert: Roles) -> None:
    found = by_role(plans(bert, HEADS))
    assert {role: p.block for role, p in found.items()} == {
        "attention.query": (8, 32),
        "attention.key": (8, 32),
        "attention.value": (8, 32),
        "attention.output": (32, 8),
    }
    assert found["attention.output"].grid == (1, 4)


def test_conv1d_blocks_are_turned_into_the_stored_layout(gpt2: Roles) -> None:
    found = by_role(plans(gpt2, HEADS, DIM))
    assert (found["attention.qkv"].shape, found["attention.qkv"].block) == ((32, 96), (32, 8))
    assert (found["attention.output"].shape, found["attention.output"].block) == ((32, 32), (8, 32))
    up, down = found["ffn.up"], found["ffn.down"]
    assert (up.block, down.block, up.units) == ((32, 1), (1, 32), down.units)
    assert up.score_shape == down.score_shape == (128, 1)


def test_shared_layers_have_one_plan_per_weight(albert: Roles) -> None:
    found = plans(albert, HEADS, DIM)
    assert len(found) == 6
    assert len({p.scores for p in found.values() if p.group == "ffn"}) == 1


def test_the_bias_goes_with_rows_and_stays_where_columns_are_cut(bert: Roles) -> None:
    found = by_role(plans(bert, HEADS, DIM))
    assert {role for role, p in found.items() if p.bias is None} == {"attention.output", "ffn.down"}
    assert found["ffn.up"].bias == "bert.encoder.layer.0.intermediate.dense.bias"
    assert {p.bias for p in plans(bert, HEADS, DIM, mask_bias=False).values()} == {None}
    squares = by_role(plans(bert, {"roles": "*.output", "block": [8, 8]}))
    assert squares["attention.output"].bias == "bert.encoder.layer.0.attention.output.dense.bias"


def test_the_first_rule_that_matches_wins(bert: Roles) -> None:
    special = {"roles": "attention.query", "block": [4, 4], "names": "*layer.1*"}
    found = plans(bert, special, {"roles": "attention.*", "block": [8, 8]})
    blocks = {w: p.block for w, p in found.items() if p.role == "attention.query"}
    assert list(blocks.values()) == [(8, 8), (4, 4)]


def test_protected_weights_are_left_out(bert: Roles) -> None:
    found = plans(bert, {"roles": "attention.*", "block": [8, 8]}, protect=["*layer.0*"])
    assert len(found) == 4
    assert not any("layer.0" in weight for weight in found)


def test_rules_and_groups_know_the_decoder(bart: Roles) -> None:
    found = plans(bart, HEADS | {"stack": "decoder"}, HEADS | {"stack": "encoder"}, DIM)
    assert {p.group for p in found.values()} == {"attention", "ffn", "decoder.attention", "decoder.ffn"}
    assert {p.group for w, p in found.items() if w.startswith("decoder.") and ".fc" in w} == {"decoder.ffn"}
    assert {p.group for p in plans(bart, DIM | {"group": "mine"}).values()} == {"mine"}


@pytest.mark.parametrize(
    ("rules", "settings", "message"),
    [
        ([{"roles": "attention.qkv", "block": [1, 1]}], {}, r"rules\[0\] \(roles \['attention\.qkv'\]\) matches nothing"
            r".*Roles in this model: attention\.key, attention\.output"),
        ([HEADS | {"names": "*foo*"}], {}, r"names \['\*foo\*'\]\) matches nothing\. Weights with such roles: bert"),
        ([HEADS | {"stack": "decoder"}], {}, r"stack 'decoder'\) matches nothing"),
        ([HEADS, HEADS], {}, r"rules\[1\] .* matches nothing that an earlier rule has not taken"),
        ([HEADS], {"protect": "bert*"}, r"matches nothing but protected weights: bert\.encoder"),
        ([HEADS], {"protect": "*typo*"}, r"protect: '\*typo\*' matches no linear weight\. Weights: bert\.encoder"),
        ([{"roles": "attention.*", "block": [5, 8]}], {}, r"blocks of 5x8 .* do not divide "
            r"bert\.encoder\.layer\.0\.attention\.self\.query\.weight \(attention\.query\), which has 32x32"),
        ([{"roles": "ffn.up", "block": [8, 24]}], {}, r"32 input features are no multiple of 24"),
        ([{"roles": "ffn.up", "block": ["head_dim", 1]}], {}, r"head_dim has no value for .*intermediate"),
        ([HEADS], {"regularization": {"groups": {"atention": 2.0}}},
            r"groups: 'atention' matches no group\. Groups: attention\."),
    ],
)  # fmt: skip
def test_refusals_say_why(bert: Roles, rules: Any, settings: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        plans(bert, *rules, **settings)


def test_weights_that_are_no_matrices_are_named_where_a_rule_finds_none() -> None:
    """XLNet's query, key, value and output have a dim for heads: (model, heads, dim)."""
    model, inputs = make(FAMILIES["xlnet"], "einsum", torch.float32)
    roles = find_roles(passes.trace(model, inputs))
    assert {str(r.role) for r in roles} == {"ffn.up", "ffn.down"}
    with pytest.raises(SpecError, match=r"have no roles: specs mask matrices\. layer\.0\.rel_attn\.q \(32 x 4 x 8\), "):
        resolve(load_spec("struct"), roles)
