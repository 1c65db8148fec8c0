"""Checkpoints by the names of their models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import init_empty_weights
from safetensors.torch import load_file, save_file
from transformers import ViTConfig, ViTForImageClassification

from bpc.streaming.checkpoint import Checkpoint, StreamError


@pytest.fixture
def config() -> ViTConfig:
    return ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4
    )


def test_old_names_on_disk_are_those_of_the_model(config: ViTConfig, tmp_path: Path) -> None:
    model = ViTForImageClassification(config)
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors").keys()
    assert stored != model.state_dict().keys()  # transformers keeps the names of earlier versions
    with init_empty_weights():
        shell = ViTForImageClassification(config)
    held = Checkpoint(tmp_path, shell)
    for name, value in model.state_dict().items():
        assert torch.equal(held[name], value), name


def test_what_is_not_there_is_said(config: ViTConfig, tmp_path: Path) -> None:
    ViTForImageClassification(config).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({name: value for name, value in load_file(file).items() if "output" not in name}, file)
    with init_empty_weights():
        shell = ViTForImageClassification(config)
    with pytest.raises(StreamError, match=r"has no tensor 'vit\.layers\.0\..*Leave out --stream"):
        Checkpoint(tmp_path, shell)
