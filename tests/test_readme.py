"""The README's Python runs as it stands there, on a tiny model in the place of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import bpc
from bpc.scores.files import multiply_masks
from tests import snippets


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the snippets take for granted: a model directory, a tokenizer, data."""
    monkeypatch.chdir(tmp_path)
    snippets.bert().save_pretrained("my-finetuned-bert")
    tokenizer = snippets.tokenizer()
    texts = ["good flight", "late again", "thank you", "lost my bag"]
    data = [{**tokenizer(text), "label": i % 2} for i, text in enumerate(texts)]
    return {"train": data, "heldout": data, "tokenizer": tokenizer}


def test_pruning_runs(names: dict[str, Any], tmp_path: Path) -> None:
    prune, serve, _ = snippets.snippets("README.md")
    snippets.run(prune, "README.md", names)
    assert (tmp_path / "small.onnx").exists()
    snippets.run(serve, "README.md", names)
    small = bpc.load(tmp_path / "small")
    inputs = snippets.batch(names["tokenizer"])
    expected = names["dense"](**inputs).logits
    torch.testing.assert_close(small(**inputs).logits, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(names["small"](**inputs).logits, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.from_numpy(names["logits"]), expected, atol=1e-4, rtol=1e-4)


def test_shrinking_runs_on_a_model_with_its_weights_and_block_masks(names: dict[str, Any]) -> None:
    """Blocks leave q and k another head size than v, which BERT's forward does not know: its layers do."""
    _, _, shrink = snippets.snippets("README.md")
    model = snippets.noisy_bert()
    inputs = snippets.batch(names["tokenizer"])
    names.update(model=model, masks=snippets.block_masks(model), ids=inputs["input_ids"], mask=inputs["attention_mask"])
    snippets.run(shrink, "README.md", names)
    result, module = names["result"], names["small"]
    assert result.report.agreement.max_rel_diff <= 1e-5
    multiply_masks(model, names["masks"])
    with torch.no_grad():
        expected = model(**inputs).logits
        torch.testing.assert_close(result.graph_module(**inputs).logits, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(module(**inputs).logits, expected, atol=1e-5, rtol=1e-5)
    sizes = [sum(p.numel() for p in m.parameters()) for m in (result.graph_module, module, model)]
    assert sizes[0] == sizes[1] < sizes[2]


def test_the_spec_loads(tmp_path: Path) -> None:
    (toml,) = snippets.snippets("README.md", "toml")
    path = tmp_path / "spec.toml"
    path.write_text(toml)
    spec = bpc.load_spec(path)
    assert spec.rules[1].paired
    assert spec.regularization.final_lambda == 10.0
