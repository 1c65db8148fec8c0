"""A tiny BERT classifier and a toy task: is the first token above the middle of the vocabulary?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments

from bpc.program import Program, compile

Example = dict[str, Any]


@pytest.fixture
def make_model() -> Callable[[int], BertForSequenceClassification]:
    def make(seed: int = 0) -> BertForSequenceClassification:
        torch.manual_seed(seed)
        config = BertConfig(
            vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
            max_position_embeddings=16, num_labels=2, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1,
        )  # fmt: skip
        return BertForSequenceClassification(config)

    return make


@pytest.fixture
def make_program(make_model: Callable[[int], BertForSequenceClassification]) -> Callable[..., Program]:
    def make(seed: int = 0, **changes: Any) -> Program:
        spec = {"preset": "hybrid", "rules": [
            {"roles": "attention.*", "block": [8, 8]},
            {"roles": "ffn.*", "block": [1, "in_features"], "paired": True},
        ], **changes}  # fmt: skip
        return compile(make_model(seed), spec, {"input_ids": torch.ones(2, 8, dtype=torch.long)})

    return make


@pytest.fixture(scope="session")
def dataset() -> list[Example]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 40, (48, 8), generator=generator)
    return [{"input_ids": row.tolist(), "labels": int(row[0] >= 20)} for row in tokens]


@pytest.fixture
def arguments(tmp_path: Path) -> Callable[..., TrainingArguments]:
    def make(name: str = "run", **changes: Any) -> TrainingArguments:
        settings: dict[str, Any] = {
            "output_dir": str(tmp_path / name), "per_device_train_batch_size": 8, "max_steps": 12, "logging_steps": 1,
            "learning_rate": 1e-3, "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True,
        }  # fmt: skip
        return TrainingArguments(**{**settings, **changes})

    return make
