"""The distillation loss."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.modeling_outputs import QuestionAnsweringModelOutput, SequenceClassifierOutput

from bpc.train import distillation_loss
from bpc.train.distill import logits_of, teacher_logits


def test_teacher_with_other_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="same outputs"):
        distillation_loss(torch.zeros(2, 3), torch.zeros(2, 4))


def test_ignored_positions_do_not_count() -> None:
    student, teacher = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    labels = torch.tensor([[1, -100, 2], [-100, -100, 4]])
    kept = labels != -100
    torch.testing.assert_close(
        distillation_loss(student, teacher, labels=labels), distillation_loss(student[kept], teacher[kept])
    )


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_loss_is_the_divergence_at_the_temperature(temperature: float) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(6, 5), torch.randn(6, 5)
    p, q = (torch.softmax(logits.double() / temperature, -1) for logits in (teacher, student))
    expected = temperature**2 * (p * (p / q).log()).sum(-1).mean()
    torch.testing.assert_close(distillation_loss(student, teacher, temperature), expected.float())
    assert distillation_loss(teacher.bfloat16(), teacher.bfloat16(), temperature).dtype is torch.float32
    assert distillation_loss(teacher, teacher, temperature) == 0


def test_labels_of_another_shape_hide_nothing() -> None:
    student, teacher = torch.randn(4, 5), torch.randn(4, 5)
    one_per_sequence = torch.full((2,), -100)
    assert distillation_loss(student, teacher, labels=one_per_sequence) == distillation_loss(student, teacher)


def test_all_logits_of_an_output_are_found() -> None:
    output = QuestionAnsweringModelOutput(
        loss=torch.zeros(()), start_logits=torch.zeros(2, 3), end_logits=torch.ones(2, 3), hidden_states=None
    )
    assert list(logits_of(output)) == ["start_logits", "end_logits"]
    with pytest.raises(ValueError, match="tuple holds no logits to distil"):
        logits_of((torch.zeros(2, 3),))


def test_a_teachers_logits_are_those_of_evaluation_without_labels() -> None:
    class Teacher(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.dropout = nn.Linear(3, 2), nn.Dropout(0.9)

        def forward(self, x: torch.Tensor) -> SequenceClassifierOutput:
            return SequenceClassifierOutput(logits=self.dropout(self.layer(x)).double())

    teacher, x = Teacher().train(), torch.randn(5, 3)
    found = teacher_logits(teacher, [{"x": part, "labels": torch.zeros(len(part))} for part in x.split(2)])
    torch.testing.assert_close(found, teacher.layer(x).detach(), rtol=0, atol=0)
