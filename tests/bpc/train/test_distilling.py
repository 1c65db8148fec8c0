"""What kinds of models a Trainer distils: with logits, numbers, embeddings or hidden states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification, BertModel, CLIPConfig, CLIPModel

import bpc
from bpc.train import Trainer

Make = Callable[..., Any]

SMALL = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


def encoder(seed: int) -> BertModel:
    torch.manual_seed(seed)
    return BertModel(BertConfig(**SMALL))


def test_an_embedding_model_learns_its_teachers_hidden_states_without_labels(arguments: Make) -> None:
    """No loss, no labels: nothing but the teacher."""
    torch.manual_seed(0)
    data = [{"input_ids": row.tolist()} for row in torch.randint(1, 40, (32, 6))]
    program, teacher = bpc.compile(encoder(0), "struct"), encoder(1)
    inputs = torch.tensor([row["input_ids"] for row in data])

    def error() -> float:
        with torch.no_grad():
            student, known = (m.eval()(input_ids=inputs).last_hidden_state for m in (program.module, teacher))
        return float(((student - known) ** 2).sum((1, 2)).div((known**2).sum((1, 2))).mean())

    before = error()
    trainer = Trainer(
        program=program,
        teacher=teacher,
        distillation_weight=1.0,
        score_learning_rate=1e-6,
        args=arguments(max_steps=20, learning_rate=5e-3),
        train_dataset=data,
    )
    trainer.train()
    assert error() < 0.6 * before


def test_clip_distils_both_embeddings(arguments: Make) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}

    def clip(seed: int) -> CLIPModel:
        torch.manual_seed(seed)
        text = {**sizes, "vocab_size": 200, "eos_token_id": 2, "max_position_embeddings": 8}
        return CLIPModel(CLIPConfig(text_config=text, vision_config={**sizes, "image_size": 8, "patch_size": 4}))

    program, teacher = bpc.compile(clip(0), "struct"), clip(1).eval()
    program.set_progress(0.0)
    trainer = Trainer(program=program, teacher=teacher, distillation_weight=0.5, args=arguments())
    batch = {"input_ids": torch.randint(3, 200, (2, 5)), "pixel_values": torch.randn(2, 3, 8, 8), "return_loss": True}
    found = trainer.compute_loss(program.module.train(), dict(batch))
    mine, other = program.module(**batch), teacher(**batch)
    errors = [2 - 2 * F.cosine_similarity(mine[n], other[n]).mean() for n in ("text_embeds", "image_embeds")]
    torch.testing.assert_close(found, 0.5 * mine.loss + 0.5 * torch.stack(errors).mean())


@pytest.mark.parametrize("kind", ["regression", "multi_label_classification"])
def test_tasks_of_other_kinds_go_by_the_config(arguments: Make, kind: str) -> None:
    labels = 1 if kind == "regression" else 3

    def model(seed: int) -> BertForSequenceClassification:
        torch.manual_seed(seed)
        return BertForSequenceClassification(BertConfig(**SMALL, num_labels=labels, problem_type=kind))

    program, teacher = bpc.compile(model(0), "struct"), model(1).eval()
    program.set_progress(0.0)
    trainer = Trainer(program=program, teacher=teacher, distillation_weight=0.5, temperature=2.0, args=arguments())
    batch = {"input_ids": torch.randint(1, 40, (4, 6)), "labels": torch.rand(4, labels)}
    found = trainer.compute_loss(program.module.train(), dict(batch))
    mine, other = program.module(**batch), teacher(input_ids=batch["input_ids"]).logits
    if kind == "regression":
        distance = ((mine.logits - other) ** 2).mean()
    else:
        p, q = torch.sigmoid(other / 2), torch.sigmoid(mine.logits / 2)
        distance = 4 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    torch.testing.assert_close(found, 0.5 * mine.loss + 0.5 * distance)
