"""Rules meet models: which weights, which blocks in the stored layout, which scores are shared."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
import torch
import transformers as hf
from rich.console import Console
from torch import nn

from bpc.scores.plan import MaskPlan
from bpc.spec import SpecError, explain, load_spec, resolve
from passes.frontend.trace import trace
from passes.structure.role import Family
from passes.structure.roles import Roles, find_roles

CAUSAL: dict[str, Any] = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
CAUSAL |= {"num_key_value_heads": 2, "intermediate_size": 64, "use_cache": False, "pad_token_id": 0}
DIM = {"roles": "ffn.*", "block": [1, "in_features"], "paired": True}
HEADS = {"roles": "attention.*", "block": ["head_dim", "in_features"]}


def ids() -> dict[str, torch.Tensor]:
    return {"input_ids": torch.randint(3, 40, (2, 9))}


def roles_of(model: nn.Module, inputs: Any) -> Roles:
    return find_roles(trace(model, inputs, dynamic=False))


@pytest.fixture(scope="module")
def bert() -> Roles:
    config = hf.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    )
    return roles_of(hf.BertForSequenceClassification(config), ids())


@pytest.fixture(scope="module")
def gpt2() -> Roles:
    config = hf.GPT2Config(vocab_size=50, n_embd=32, n_layer=1, n_head=4, use_cache=False)
    return roles_of(hf.GPT2Model(config), ids())


@pytest.fixture(scope="module")
def llama() -> Roles:
    return roles_of(hf.LlamaModel(hf.LlamaConfig(**CAUSAL)), ids())


@pytest.fixture(scope="module")
def phi3() -> Roles:
    return roles_of(hf.Phi3Model(hf.Phi3Config(**CAUSAL)), ids())


@pytest.fixture(scope="module")
def albert() -> Roles:
    config = hf.AlbertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        embedding_size=16,
    )
    return roles_of(hf.AlbertModel(config), ids())


@pytest.fixture(scope="module")
def bart() -> Roles:
    config = hf.BartConfig(
        vocab_size=50,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
    )
    return roles_of(
        hf.BartModel(config), ids() | {"decoder_input_ids": torch.randint(3, 40, (2, 5)), "use_cache": False}
    )


def plans(roles: Roles, *rules: dict[str, Any], **settings: Any) -> dict[str, MaskPlan]:
    return {p.weight: p for p in resolve(load_spec({"rules": list(rules), **settings}), roles)}


def by_role(found: dict[str, MaskPlan]) -> dict[str, MaskPlan]:
    return {p.role: p for p in reversed(found.values())}


def test_struct_cuts_heads_from_rows_and_from_the_outputs_columns(bert: Roles) -> None:
    found = by_role(plans(bert, HEADS))
    assert {role: p.block for role, p in found.items()} == {
        "attention.query": (8, 32),
        "attention.key": (8, 32),
        "attention.value": (8, 32),
        "attention.output": (32, 8),
    }
    assert found["attention.output"].grid == (1, 4)


def test_paired_ffn_shares_one_score_per_dim(bert: Roles) -> None:
    found = plans(bert, DIM)
    assert len(found) == 4
    up, down = (found[f"bert.encoder.layer.0.{n}.dense.weight"] for n in ("intermediate", "output"))
    assert (up.block, down.block) == ((1, 32), (32, 1))
    assert up.scores == down.scores
    assert (up.transposed, down.transposed) == (False, True)
    assert up.score_shape == down.score_shape == (64, 1)
    assert len({p.scores for p in found.values()}) == 2


def test_conv1d_blocks_are_turned_into_the_stored_layout(gpt2: Roles) -> None:
    found = by_role(plans(gpt2, HEADS, DIM))
    assert (found["attention.qkv"].shape, found["attention.qkv"].block) == ((32, 96), (32, 8))
    assert (found["attention.output"].shape, found["attention.output"].block) == ((32, 32), (8, 32))
    up, down = found["ffn.up"], found["ffn.down"]
    assert (up.block, up.transposed, down.block, down.transposed) == ((32, 1), True, (1, 32), False)
    assert up.score_shape == down.score_shape == (128, 1)


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


def test_shared_layers_have_one_plan_per_weight(albert: Roles) -> None:
    found = plans(albert, HEADS, DIM)
    assert len(found) == 6
    assert len({p.scores for p in found.values() if p.group == "ffn"}) == 1


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


@pytest.mark.parametrize("preset", ["struct", "movement", "rows-cols", "heads", "block-4", "block-8"])
def test_presets_fit_every_layout(
    preset: str, bert: Roles, gpt2: Roles, llama: Roles, phi3: Roles, bart: Roles
) -> None:
    for roles in (bert, gpt2, llama, phi3, bart):
        found = resolve(load_spec(preset), roles)
        wanted = [
            r for r in roles if r.role.family is Family.ATTENTION or (r.role.family is Family.FFN and preset != "heads")
        ]
        assert [p.weight for p in found] == [r.weight for r in wanted]


def test_explain_lists_what_is_matched_and_what_is_not(bert: Roles) -> None:
    spec = load_spec({"preset": "struct", "regularization": {"groups": {"ffn": 0.5}}})
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(explain(spec, bert, resolve(spec, bert)))
    lines = [re.split(r"\s{2,}", line.strip()) for line in console.export_text().splitlines()]
    assert "12 of 14 linears masked, 93.8 % of 17,472 weights" in lines[0][0]
    assert ["attention.query", "2", "4 x 8", "32 x 32", "8 x 32", "4 x 1", "4", "masked", "attention", "20"] in lines
    assert ["ffn.down", "2", "32 x 64", "32 x 1", "1 x 64", "64 shared", "kept", "ffn", "10"] in lines
    assert ["mlp.up", "1", "32 x 32", "-"] in lines
    console.print(explain(spec, bert, resolve(spec, bert), every_weight=True))
    assert "bert.pooler.dense.weight" in console.export_text()
