from __future__ import annotations

from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification

import bpc
import passes
from benchmarks.precision import FileModel


def test_a_file_answers_like_its_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, num_labels=3
    )
    model = BertForSequenceClassification(config).eval()
    ids = torch.randint(1, 20, (2, 6))
    graph = passes.trace(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    path = bpc.export_onnx(graph, tmp_path / "m.onnx").path
    batch = {"input_ids": torch.randint(1, 20, (3, 4)), "attention_mask": torch.tensor([[1, 1, 1, 0]] * 3)}
    with torch.no_grad():
        expected = model(**batch).logits
    torch.testing.assert_close(FileModel(path)(**batch).logits, expected, atol=1e-4, rtol=1e-4)
