"""Small models and peft: LoRA on a small model, trained, kept as an adapter, merged and saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForSequenceClassification

import bpc
from bpc.dense import DenseModel, load

IDS = torch.randint(3, 50, (2, 7), generator=torch.Generator().manual_seed(1))
TEXT = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**TEXT).logits


def trained(module: Any) -> Any:
    """With LoRA in every linear layer of the small model, whatever sizes they have, after three steps."""
    before = logits(module)
    adapted = peft.get_peft_model(module, peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules="all-linear"))
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], 1e-2)
    for _ in range(3):
        adapted(**TEXT, labels=torch.tensor([0, 1])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    adapted.eval()
    assert (logits(adapted) - before).abs().max() > 1e-3
    return adapted


def test_an_adapter_is_trained_saved_and_merged(small: DenseModel, tmp_path: Path) -> None:
    small.save_pretrained(tmp_path / "small")
    adapted = trained(AutoModelForSequenceClassification.from_pretrained(tmp_path / "small"))
    expected = logits(adapted)
    adapted.save_pretrained(tmp_path / "adapter")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "small")
    again = peft.PeftModel.from_pretrained(again, tmp_path / "adapter").eval()
    torch.testing.assert_close(logits(again), expected, rtol=1e-5, atol=1e-6)
    by_name = peft.AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "adapter").eval()
    torch.testing.assert_close(logits(by_name), expected, rtol=1e-5, atol=1e-6)
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), expected, rtol=1e-5, atol=1e-6)
    sizes = [p.shape for p in load(tmp_path / "small").module.parameters()]
    assert [p.shape for p in merged.parameters()] == sizes


def test_a_dense_model_is_saved_after_its_adapters_are_merged(small: DenseModel, tmp_path: Path) -> None:
    small.save_pretrained(tmp_path / "small")
    dense = load(tmp_path / "small")
    adapted = trained(dense.module)
    expected = logits(adapted)
    with pytest.raises(ValueError, match=r"adapters of peft .* model\.merge_and_unload"):
        dense.save_pretrained(tmp_path / "again")
    adapted.merge_and_unload()
    dense.save_pretrained(tmp_path / "again")
    torch.testing.assert_close(logits(load(tmp_path / "again")), expected, rtol=1e-5, atol=1e-6)


def test_a_merged_model_is_compiled_and_one_with_adapters_is_refused(small: DenseModel, tmp_path: Path) -> None:
    small.save_pretrained(tmp_path / "small")
    adapted = trained(load(tmp_path / "small").module)
    for model in (adapted, adapted.base_model.model):
        with pytest.raises(ValueError, match=r"adapters of peft .* model\.merge_and_unload"):
            bpc.compile(model, "struct")
        with pytest.raises(ValueError, match="merge_and_unload"):
            bpc.prune_once(model, [TEXT], bpc.Target(params=0.9), progress=False)
    merged = adapted.merge_and_unload()
    program = bpc.compile(merged, "struct")
    with torch.no_grad():
        for scores in program.score_parameters():
            scores[:2] = -10.0
    expected = logits(program.masked_model().eval())
    smaller = program.shrink()
    torch.testing.assert_close(logits(smaller.module), expected, rtol=1e-4, atol=1e-5)
    assert smaller.module.num_parameters() < merged.num_parameters()
