"""A small classifier, as bpc makes it."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

import passes
from bpc.dense import DenseModel

IDS = torch.randint(3, 50, (2, 7), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def small() -> DenseModel:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=60, hidden_size=32, num_attention_heads=4, intermediate_size=48, num_hidden_layers=1,
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        model.bert.encoder.layer[0].attention.self.value.weight[:16] = 0
        model.bert.encoder.layer[0].intermediate.dense.weight[:20] = 0
    return DenseModel.from_shrink(
        passes.shrink(passes.trace(model, {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)})), model
    )
