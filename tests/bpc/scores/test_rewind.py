"""Heads that an earlier run kept stay whole in the next."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

import bpc
from bpc.scores.files import save_masks
from bpc.scores.rewind import surviving_blocks
from passes import MaskError
from passes.structure.head_places import head_places

LAYER = "bert.encoder.layer.0"
SPEC = {"preset": "hybrid", "rules": [
    {"roles": "attention.*", "block": [8, 8]}, {"roles": "ffn.*", "block": [1, "in_features"], "paired": True},
]}  # fmt: skip
IDS = {"input_ids": torch.ones(2, 6, dtype=torch.long)}


def bert() -> BertForSequenceClassification:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "num_hidden_layers": 2}
    return BertForSequenceClassification(BertConfig(vocab_size=40, max_position_embeddings=16, **sizes)).eval()


def first_run() -> dict[str, torch.Tensor]:
    """Heads 1 and 2 of layer 0 live, by one value row and one output column each; layer 1 keeps everything."""
    program = bpc.compile(bert(), SPEC, IDS)
    masks = {name: torch.ones_like(mask) for name, mask in program.masks().items()}
    value, output = (masks[f"{LAYER}.attention.{name}.weight"] for name in ("self.value", "output.dense"))
    value[:] = False
    value[[9, 17], 3] = True  # heads 1 and 2
    value[25, 5] = True  # and 3, which no output reads
    output[:, 24:] = False
    return masks


def all_pruned(program: Any) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        for score in program.mask_set.scores.values():
            score.fill_(-9.0)
    masks: dict[str, torch.Tensor] = program.masks()
    return masks


def test_blocks_of_live_heads_stay_whatever_the_scores_say(tmp_path: Path) -> None:
    save_masks(first_run(), tmp_path / "masks.safetensors")
    for source in (first_run(), tmp_path / "masks.safetensors"):
        model = bert()
        program = bpc.compile(model, SPEC, IDS, rewind=source)
        masks = all_pruned(program)
        live = torch.zeros(32, dtype=torch.bool)
        live[8:24] = True
        for name in ("self.query", "self.key", "self.value"):
            assert torch.equal(masks[f"{LAYER}.attention.{name}.weight"], live[:, None].expand(32, 32)), name
        assert torch.equal(masks[f"{LAYER}.attention.output.dense.weight"], live[None, :].expand(32, 32))
        assert masks["bert.encoder.layer.1.attention.self.query.weight"].all()
        assert not masks[f"{LAYER}.intermediate.dense.weight"].any()  # dims are free, as in the first run
        small = program.shrink().module
        assert small.bert.encoder.layer[0].attention.self.value.out_features == 16


@pytest.mark.parametrize("method", ["sigmoid_threshold", "topk", "magnitude"])
def test_a_target_counts_what_stays(method: str) -> None:
    rewound = bpc.compile(bert(), {**SPEC, "method": method}, IDS, target=bpc.Target(density=0.5), rewind=first_run())
    rewound.set_progress(1.0)
    masks = rewound.masks()
    assert masks[f"{LAYER}.attention.self.query.weight"][8:24].all()
    assert masks["bert.encoder.layer.1.attention.self.query.weight"].all()
    left, asked = map(float, re.findall(r"([\d.]+)%", rewound.describe_cost()))
    assert asked - 2 < left <= asked
    with pytest.raises(ValueError, match="cannot be reached"):
        bpc.compile(bert(), {**SPEC, "method": method}, IDS, target=bpc.Target(density=0.1), rewind=first_run())


def test_keys_and_values_stay_with_any_of_the_heads_that_read_them() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    program = bpc.compile(model, {"rules": [{"roles": "attention.*", "block": [8, 8]}]}, {**IDS, "use_cache": False})
    masks = {name: torch.ones_like(mask) for name, mask in program.masks().items()}
    masks["model.layers.0.self_attn.o_proj.weight"][:, 8:] = False  # head 0 alone, which reads key head 0
    blocks = surviving_blocks(program.plans, masks, head_places(program.roles))
    found = {name.split(".")[-2]: grid.any(1).tolist() for name, grid in blocks.items()}
    assert found["q_proj"] == [True, False, False, False]
    assert found["k_proj"] == found["v_proj"] == [True, False]
    assert blocks["model.layers.0.self_attn.o_proj.weight"].any(0).tolist() == [True, False, False, False]


def test_a_fused_weight_keeps_the_blocks_of_a_head_in_each_of_its_operands() -> None:
    """Queries, keys and values lie side by side: three stretches of four heads."""
    sizes = {"vocab_size": 40, "n_positions": 16, "n_embd": 32, "n_layer": 1, "n_head": 4}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).eval()
    program = bpc.compile(model, {"rules": [{"roles": "attention.*", "block": [8, 8]}]}, {**IDS, "use_cache": False})
    fused, output = (f"transformer.h.0.attn.{name}.weight" for name in ("c_attn", "c_proj"))
    masks = {name: torch.ones_like(mask) for name, mask in program.masks().items()}
    masks[output][8:] = False  # stored input first: head 0 alone is read
    masks[fused][:, 64:80] = False  # the values of heads 0 and 1
    places = head_places(program.roles)
    assert not surviving_blocks(program.plans, masks, places)[fused].any()
    masks[fused][3, 70] = True
    blocks = surviving_blocks(program.plans, masks, places)
    assert blocks[fused].any(0).nonzero().flatten().tolist() == [0, 4, 8]
    assert blocks[output].any(1).tolist() == [True, False, False, False]
    assert surviving_blocks(program.plans, masks, {})[fused].all()  # where nothing is known of it


def test_masks_that_say_nothing_of_heads_are_refused() -> None:
    masks = {name: mask for name, mask in first_run().items() if "attention" not in name}
    with pytest.raises(MaskError, match="say of no head whether it was kept"):
        bpc.compile(bert(), SPEC, IDS, rewind=masks)
    wrong = first_run() | {f"{LAYER}.attention.self.value.weight": torch.ones(8, 8, dtype=torch.bool)}
    with pytest.raises(MaskError, match="shape"):
        bpc.compile(bert(), SPEC, IDS, rewind=wrong)
