"""A small model whose layers hold less than its forward sees, made plain: for peft, for further pruning."""

from __future__ import annotations

import copy
from pathlib import Path

import peft
import pytest
import torch

import bpc
from bpc.dense import load
from passes.ir.compact import compact_layers
from tests.bpc import generators


def test_a_widened_model_computes_the_same_and_is_saved_so(tmp_path: Path) -> None:
    model, dense = generators.small("t5")
    inputs = generators.example(model)
    assert compact_layers(dense.module)
    assert bpc.widen(model) is model
    wide = bpc.widen(copy.deepcopy(dense.module))
    assert not compact_layers(wide)
    assert wide.num_parameters() > dense.module.num_parameters()
    wide.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    with torch.no_grad():
        expected = dense.module(**inputs).logits
        for other in (wide, again):
            torch.testing.assert_close(other(**inputs).logits, expected, rtol=1e-5, atol=1e-6)


def test_adapters_train_in_compact_layers_and_merge_into_wide_ones(tmp_path: Path) -> None:
    """Unwidened, merging is an error of shapes, and no other model."""
    model, dense = generators.small("t5")
    inputs = generators.example(model)
    config = peft.LoraConfig(r=2, target_modules=["q", "o"], init_lora_weights=False)
    adapted = peft.get_peft_model(copy.deepcopy(dense.module), config).eval()
    with torch.no_grad():
        expected = adapted(**inputs).logits
    with pytest.raises(ValueError, match="widen the model before it gets them"):  # its config would keep the old sizes
        bpc.widen(adapted)
    adapted.save_pretrained(tmp_path / "adapter")
    wide = peft.PeftModel.from_pretrained(bpc.widen(copy.deepcopy(dense.module)), tmp_path / "adapter").eval()
    with torch.no_grad():
        torch.testing.assert_close(wide.merge_and_unload()(**inputs).logits, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(RuntimeError, match="size"):
        adapted.merge_and_unload()


def test_a_compact_model_is_pruned_again(tmp_path: Path) -> None:
    _, dense = generators.small("t5")
    dense.save_pretrained(tmp_path / "small")
    again = load(tmp_path / "small").module
    program = bpc.compile(again, "struct", generators.example(again))
    with torch.no_grad():
        for scores in program.score_parameters():
            scores[:2] = -10.0
        expected = program.masked_model().eval()(**generators.example(again)).logits
    smaller = program.shrink()
    assert smaller.module.num_parameters() < dense.module.num_parameters()
    with torch.no_grad():
        actual = smaller.module(**generators.example(again)).logits
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
