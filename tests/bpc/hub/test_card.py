"""The card says what was pruned and what was measured, and nothing that was not."""

from __future__ import annotations

from pathlib import Path

import torch
from huggingface_hub import ModelCard

from bpc.dense import DenseModel, load
from bpc.hub.card import is_ours
from tests.bpc import generators


def test_the_card_of_a_shrink(small: DenseModel, tmp_path: Path) -> None:
    small.save_pretrained(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.library_name == "transformers"
    assert "bpc" in (card.data.tags or [])
    assert card.data.base_model is None
    parameters = sum(p.numel() for p in small.module.parameters())
    assert f"{parameters:,} here" in card.text
    assert "| `bert.encoder.layer.N.intermediate.dense.weight` | 0 | 48 | 28 |" in card.text
    assert small.report is not None
    assert small.report.agreement is not None
    assert f"largest difference {small.report.agreement.max_abs_diff:.2e}" in card.text
    assert "AutoModelForSequenceClassification.from_pretrained(DIRECTORY)" in card.text
    assert "trust_remote_code" not in card.text
    assert str(tmp_path) not in card.text


def test_layers_of_one_kind_share_a_row(tmp_path: Path) -> None:
    _, dense = generators.small("llama")
    dense.config._name_or_path = "someone/a-model"
    try:
        dense.save_pretrained(tmp_path, standalone=True)
    finally:
        dense.config._name_or_path = ""
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.base_model == "someone/a-model"
    assert "| `model.layers.N.mlp.up_proj.weight` | 0 | 48 | 48 28 |" in card.text
    assert "| `model.layers.N.self_attn.k_proj.weight` | 0 | 16 | 8 16 |" in card.text
    assert "AutoModelForCausalLM.from_pretrained(DIRECTORY, trust_remote_code=True)" in card.text


def test_nothing_vouches_for_weights_that_were_trained(small: DenseModel, tmp_path: Path) -> None:
    small.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    with torch.no_grad():
        next(loaded.module.parameters()).add_(1)
    loaded.save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "no certificate lies beside them" in text
    assert "largest difference" not in text


def test_a_card_that_somebody_wrote_stays(small: DenseModel, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Mine")
    assert not is_ours(tmp_path / "README.md")
    small.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "# Mine"


def test_what_pruned_without_training_says_so(small: DenseModel, tmp_path: Path) -> None:
    small.one_shot = "heads 12 → 7: 4 3"
    try:
        small.save_pretrained(tmp_path)
    finally:
        small.one_shot = None
    text = (tmp_path / "README.md").read_text()
    assert text.index("## How it was pruned") < text.index("heads 12 → 7: 4 3") < text.index("## Loading")
