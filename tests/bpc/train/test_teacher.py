"""A teacher is shown what the student saw, and one whose outputs mean something else is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BartForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    M2M100Config,
    M2M100ForConditionalGeneration,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from bpc.train import Trainer
from bpc.train.teacher import check_teacher, teacher_inputs

Make = Callable[..., Any]

BOTH = {
    "vocab_size": 30, "d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "max_position_embeddings": 20,
}  # fmt: skip


def t5(**changes: Any) -> PreTrainedModel:
    sizes = {"vocab_size": 30, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    return T5ForConditionalGeneration(T5Config(**{**sizes, "decoder_start_token_id": 0, **changes})).eval()


def bart(**changes: Any) -> PreTrainedModel:
    return BartForConditionalGeneration(BartConfig(**{**BOTH, **changes})).eval()


def m2m(**changes: Any) -> PreTrainedModel:
    """Has no prepare_decoder_input_ids_from_labels: its forward shifts the labels itself."""
    return M2M100ForConditionalGeneration(M2M100Config(**{**BOTH, "decoder_start_token_id": 2, **changes})).eval()


def decoder_inputs(model: Any, inputs: dict[str, Any]) -> Tensor:
    """What the decoder's embedding looks up."""
    seen: list[Tensor] = []
    hook = model.get_decoder().embed_tokens.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(**inputs)
    hook.remove()
    return seen[-1]  # of the two stacks of a model with one table, the decoder comes last


@pytest.mark.parametrize("make", [t5, bart, m2m])
@pytest.mark.parametrize("length", [4, 7])  # that of the source, too: lengths that agree hide a wrong input
def test_decoders_see_the_same_tokens(make: Callable[[], PreTrainedModel], length: int) -> None:
    student, teacher = make(), make()
    labels = torch.randint(3, 30, (2, length))
    labels[1, -2:] = -100
    inputs = {"input_ids": torch.randint(3, 30, (2, 7)), "attention_mask": torch.ones(2, 7), "labels": labels}
    mine = decoder_inputs(student, inputs)
    torch.testing.assert_close(decoder_inputs(teacher, teacher_inputs(inputs, student)), mine, rtol=0, atol=0)


def test_inputs_that_are_given_stay() -> None:
    given = {"input_ids": torch.ones(1, 3), "decoder_input_ids": torch.ones(1, 2), "labels": torch.ones(1, 2)}
    assert teacher_inputs(given, t5()).keys() == {"input_ids", "decoder_input_ids"}
    assert teacher_inputs({"x": torch.ones(1), "labels": torch.ones(1)}, nn.Linear(1, 1)).keys() == {"x"}


def test_classes_of_an_encoder_with_decoder_are_not_tokens() -> None:
    model = BartForSequenceClassification(BartConfig(**BOTH, num_labels=2)).eval()
    inputs = {"input_ids": torch.tensor([[3, 4, 2]]), "labels": torch.tensor([1])}
    assert "decoder_input_ids" not in teacher_inputs(inputs, model)
    with torch.no_grad():
        assert model(**teacher_inputs(inputs, model)).logits.shape == (1, 2)


def bert(**changes: Any) -> PreTrainedModel:
    sizes = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    return BertForSequenceClassification(BertConfig(**sizes, intermediate_size=8, **changes))


def named(*names: str) -> PreTrainedModel:
    return bert(id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)})


def llama(vocabulary: int) -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
        )
    )


@pytest.mark.parametrize(
    ("student", "teacher", "reason"),
    [
        (lambda: named("a", "b"), lambda: named("b", "a"), "the teacher orders its classes b, a, the model a, b"),
        (lambda: named("a", "b"), lambda: named("a", "c"), "the teacher has the classes a, c, the model a, b"),
        (lambda: bert(num_labels=3), lambda: bert(num_labels=2), "the teacher has 2 classes .*, the model 3"),
        (lambda: llama(30), lambda: llama(40), "the teacher's vocabulary has 40 tokens, the model's 30"),
        (m2m, lambda: m2m(decoder_start_token_id=3), "the teacher's decoder_start_token_id is 3, the model's 2"),
    ],
)
def test_another_meaning_is_refused(student: Make, teacher: Make, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_teacher(teacher(), student())


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        (lambda: named("a", "b"), lambda: named("a", "b")),
        (lambda: named("a", "b"), bert),  # nobody named its classes: nothing is known against it
        (lambda: llama(30), lambda: llama(30)),
        (t5, lambda: t5(decoder_start_token_id=3)),  # it is shown what the student's decoder saw
        (lambda: nn.Linear(2, 2), bert),
    ],
)
def test_the_same_meaning_is_accepted(student: Make, teacher: Make) -> None:
    check_teacher(teacher(), student())


def test_it_is_refused_before_any_training(make_program: Make, make_model: Make, arguments: Make) -> None:
    program, teacher = make_program(), make_model(1)
    program.module.config.id2label = {0: "no", 1: "yes"}
    teacher.config.id2label = {0: "yes", 1: "no"}
    with pytest.raises(ValueError, match="orders its classes yes, no"):
        Trainer(program=program, teacher=teacher, args=arguments())
