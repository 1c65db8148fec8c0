from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForQuestionAnswering

from bpc.bench import peers
from bpc.bench.published import PublishedModel


def tiny_model() -> Any:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30000, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
        max_position_embeddings=16,
    )  # fmt: skip
    return BertForQuestionAnswering(config).eval()


def test_the_references_optimize_step_leaves_the_published_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "bert_base_model", tiny_model)
    model = PublishedModel(1, "none", "hybrid", ((0, 3), (1,)), (5, 7), 1.5)
    sizes = {n: tuple(p.shape) for n, p in peers.reference(model).named_parameters()}
    for layer, (heads, dims) in enumerate(((2, 5), (3, 7))):
        prefix = f"bert.encoder.layer.{layer}"
        for projection in ("query", "key", "value"):
            assert sizes[f"{prefix}.attention.self.{projection}.weight"] == (8 * heads, 32)
        assert sizes[f"{prefix}.attention.output.dense.weight"] == (32, 8 * heads)
        assert sizes[f"{prefix}.intermediate.dense.weight"] == (dims, 32)
        assert sizes[f"{prefix}.output.dense.weight"] == (32, dims)
