"""Checkpoints of masked training are refused by `from_pretrained`, and the way out that is told works."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_model
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification
from typer.testing import CliRunner

import bpc
from bpc.cli import app
from bpc.dense import DenseModel
from bpc.scores.files import save_masks

IDS = torch.randint(3, 50, (2, 7), generator=torch.Generator().manual_seed(0))
TEXT = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}


def _program(config: BertConfig | None = None) -> bpc.Program:
    torch.manual_seed(0)
    config = config or BertConfig(
        vocab_size=60, hidden_size=32, num_attention_heads=4, intermediate_size=48, num_hidden_layers=1
    )
    return bpc.compile(BertForSequenceClassification(config).eval(), "struct", TEXT)


@pytest.fixture(scope="module")
def program() -> bpc.Program:
    program = _program()
    with torch.no_grad():
        for score in program.score_parameters():
            score.copy_(torch.randn(score.shape, generator=torch.Generator().manual_seed(score.numel())))
    program.set_progress(1.0)
    return program


@pytest.fixture
def checkpoint(program: bpc.Program, tmp_path: Path) -> Path:
    program.module.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def test_a_masked_checkpoint_does_not_load_unmasked(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=r"its weights are unmasked.*load_model\(program\.module"):
        AutoModelForSequenceClassification.from_pretrained(checkpoint)


def test_shrink_takes_it_with_masks_and_not_without(program: bpc.Program, checkpoint: Path, tmp_path: Path) -> None:
    runner, given = CliRunner(), ["shrink", "--model", str(checkpoint), "--out", str(tmp_path / "small")]
    refused = runner.invoke(app, given)
    assert refused.exit_code == 1
    assert "unmasked" in refused.output
    save_masks(program.masks(), tmp_path / "masks.safetensors")
    done = runner.invoke(app, [*given, "--masks", str(tmp_path / "masks.safetensors")])
    assert done.exit_code == 0, done.output
    small = AutoModelForSequenceClassification.from_pretrained(tmp_path / "small")
    with torch.no_grad():
        torch.testing.assert_close(small(**TEXT).logits, program.masked_model()(**TEXT).logits, atol=1e-5, rtol=1e-5)


def test_its_weights_go_into_a_program_again(program: bpc.Program, checkpoint: Path) -> None:
    again = _program()
    load_model(again.module, checkpoint / "model.safetensors")
    with torch.no_grad():
        assert again.masked_model()(**TEXT).logits.equal(program.masked_model()(**TEXT).logits)


def test_what_is_not_masked_any_more_loads(tmp_path: Path) -> None:
    program = _program()
    for name, model in {
        "masked": program.masked_model(),
        "small": program.shrink().module,
        "plain": program.detach(),
    }.items():
        model.save_pretrained(tmp_path / name)
        loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / name)
        with torch.no_grad():
            torch.testing.assert_close(loaded(**TEXT).logits, model(**TEXT).logits)


def test_a_teacher_with_the_same_config_is_no_masked_model(tmp_path: Path) -> None:
    config = BertConfig(vocab_size=60, hidden_size=32, num_attention_heads=4, intermediate_size=48, num_hidden_layers=1)
    teacher = BertForSequenceClassification(config)
    program = _program(config)
    assert program.module.config is program.module.bert.config
    teacher.save_pretrained(tmp_path)
    AutoModelForSequenceClassification.from_pretrained(tmp_path)


def test_a_small_model_in_masked_training_keeps_its_sizes(program: bpc.Program, tmp_path: Path) -> None:
    small = program.shrink().module
    again = bpc.compile(small, "struct", TEXT)
    with torch.no_grad():
        for score in again.score_parameters():
            score.fill_(1.0)
            score[0] = -9.0
    again.set_progress(1.0)
    dense: DenseModel = again.shrink()
    dense.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert sum(p.numel() for p in loaded.parameters()) < sum(p.numel() for p in small.parameters())
    with torch.no_grad():
        torch.testing.assert_close(loaded(**TEXT).logits, dense.module(**TEXT).logits)
