"""The distillation loss."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Bernoulli, kl_divergence
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    QuestionAnsweringModelOutput,
)
from transformers.models.clip.modeling_clip import CLIPOutput

from bpc.train import distillation_loss
from bpc.train.distill import divergence, logits_of, relative_error


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
    with pytest.raises(ValueError, match="tuple holds no logits, embeddings or last_hidden_state to distil"):
        logits_of((torch.zeros(2, 3),))


def test_numbers_are_distilled_by_their_squared_difference() -> None:
    student, teacher = torch.randn(6, 1), torch.randn(6, 1)
    expected = ((student - teacher) ** 2).mean()
    torch.testing.assert_close(distillation_loss(student, teacher, temperature=3.0), expected)
    student, teacher = torch.randn(6, 3), torch.randn(6, 3)
    found = distillation_loss(student, teacher, problem_type="regression")
    torch.testing.assert_close(found, ((student - teacher) ** 2).mean())


def test_independent_labels_are_distilled_one_by_one() -> None:
    student, teacher = torch.randn(6, 3), torch.randn(6, 3)
    p, q = (Bernoulli(logits=logits.double() / 2.0) for logits in (teacher, student))
    found = distillation_loss(student, teacher, 2.0, problem_type="multi_label_classification")
    torch.testing.assert_close(found, 4.0 * kl_divergence(p, q).mean().float())


def test_labels_of_the_next_token_hide_the_output_before() -> None:
    student, teacher = torch.randn(1, 4, 5), torch.randn(1, 4, 5)
    labels = torch.tensor([[-100, -100, 3, 4]])  # outputs 1 and 2 are compared with them
    found = distillation_loss(student, teacher, labels=labels, shifted=True)
    torch.testing.assert_close(found, distillation_loss(student[:, 1:3], teacher[:, 1:3]))


def test_embeddings_of_one_length_are_compared_by_their_angle() -> None:
    student, teacher = (torch.nn.functional.normalize(torch.randn(4, 8)) for _ in range(2))
    expected = (2 - 2 * (student * teacher).sum(-1)).mean()
    torch.testing.assert_close(relative_error(student, teacher), expected)
    torch.testing.assert_close(relative_error(10 * student, 10 * teacher), expected)
    with pytest.raises(ValueError, match="same outputs"):
        relative_error(student, teacher[:, :4])


def test_padding_does_not_count_in_hidden_states() -> None:
    student, teacher = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    mask = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]])
    parts = [relative_error(student[:1, :2], teacher[:1, :2]), relative_error(student[1:], teacher[1:])]
    torch.testing.assert_close(relative_error(student, teacher, mask), torch.stack(parts).mean())


def test_embeddings_stand_in_for_logits_and_hidden_states_for_both() -> None:
    hidden, vector = torch.randn(2, 3, 4), torch.randn(2, 4)
    assert list(logits_of(CLIPOutput(text_embeds=vector, image_embeds=vector, logits_per_text=vector))) == [
        "text_embeds",
        "image_embeds",
    ]
    assert list(logits_of(BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=vector))) == [
        "last_hidden_state"
    ]


def test_a_teacher_with_other_outputs_is_refused() -> None:
    with pytest.raises(ValueError, match="the teacher returns end_logits, the model that is pruned start_logits"):
        divergence({"start_logits": torch.ones(1, 2)}, {"end_logits": torch.ones(1, 2)}, {}, temperature=1.0)
