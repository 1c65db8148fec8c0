"""Task loss, distillation and λ keep their proportion however a step is cut: against a formula for the whole batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)
from transformers.trainer_callback import TrainerCallback

import bpc
from bpc.program import Program
from bpc.train import Trainer

Make = Callable[..., Any]
Rows = list[dict[str, Any]]

WEIGHT, TEMPERATURE, LAMBDA, IGNORED = 0.4, 3.0, 10.0, -100
SPEC = {
    "rules": [
        {"roles": "attention.*", "block": [8, 8]},
        {"roles": "ffn.*", "block": [1, "in_features"], "paired": True},
    ],
    "regularization": {"final_lambda": LAMBDA},
    "threshold": {"initial": 0.1, "final": 0.1},  # λ's ramp is 1 − c³ then: 0.875 at progress 0.5
    "schedule": {"warmup": 0.0},
}
SMALL = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 16,
}  # fmt: skip


def classifier(seed: int) -> nn.Module:
    """Takes num_items_in_batch, as every model with **kwargs, and returns the mean all the same."""
    torch.manual_seed(seed)
    return BertForSequenceClassification(BertConfig(**SMALL, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))


def tagger(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return BertForTokenClassification(BertConfig(**SMALL, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))


def language_model(seed: int) -> nn.Module:
    """Divides by num_items_in_batch."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**SMALL, num_key_value_heads=2))


def unnamed_language_model(seed: int) -> nn.Module:
    """Of whose loss transformers does not know by the class's name that it compares with the next token."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_inner": 24, "n_positions": 16}
    return GPT2LMHeadModel(GPT2Config(**sizes, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))


def rows(kind: str) -> Rows:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 40, (8, 6), generator=generator)
    if kind == "classifier":
        labels = [i % 2 for i in range(8)]
    else:
        table = tokens.clone() if kind.endswith("language_model") else tokens % 2
        for i in range(8):  # micro-batches with 1 to 6 labels a row, and one with none
            table[i, : (0, 3, 5, 6)[i // 2] if i // 2 < 3 else 6] = IGNORED
        labels = table.tolist()
    return [{"input_ids": row.tolist(), "labels": label} for row, label in zip(tokens, labels, strict=True)]


def whole_batch_loss(model: nn.Module, teacher: nn.Module, program: Program, data: Rows, shifted: bool) -> Tensor:
    """(1 − w)·cross-entropy + w·T²·KL over all labelled outputs at once, + λ·mean over groups and scores of σ(S)."""
    inputs = torch.tensor([row["input_ids"] for row in data])
    labels = torch.tensor([row["labels"] for row in data])
    mine = model(input_ids=inputs).logits
    with torch.no_grad():
        other = teacher(input_ids=inputs).logits
    if shifted:
        mine, other, labels = mine[:, :-1], other[:, :-1], labels[:, 1:]
    kept = labels != IGNORED
    mine, other, labels = mine[kept], other[kept], labels[kept]
    p, q = (torch.log_softmax(logits / TEMPERATURE, -1) for logits in (other, mine))
    divergence = TEMPERATURE**2 * (p.exp() * (p - q)).sum(-1).mean()
    by_group = [
        torch.stack([torch.sigmoid(program.mask_set.scores[key]).mean() for key in keys]).mean()
        for keys in program.mask_set.groups.values()
    ]
    penalty = LAMBDA * program.mask_set.regularization_ramp * torch.stack(by_group).mean()
    return (1 - WEIGHT) * F.cross_entropy(mine, labels) + WEIGHT * divergence + penalty


class Gradients(TrainerCallback):
    """All gradients of the first step, and the loss that was logged."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.found: dict[str, Tensor] = {}

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        named = self.model.named_parameters()
        self.found = {name: p.grad.clone() for name, p in named if p.grad is not None}


def progress_at_the_middle(program: Program) -> None:
    """And stays there: a step at which λ's ramp is neither 0 nor 1."""
    program.set_progress(0.5)
    program.mask_set.set_progress = lambda _: None  # type: ignore[method-assign]


def run(
    make: Callable[[int], nn.Module], data: Rows, args: Any, kind: type[Trainer] = Trainer, **options: Any
) -> tuple[dict[str, Tensor], float]:
    program = bpc.compile(make(0), SPEC)
    progress_at_the_middle(program)
    seen = Gradients(program.module)
    trainer = kind(
        program=program,
        teacher=make(1),
        distillation_weight=WEIGHT,
        temperature=TEMPERATURE,
        args=args,
        train_dataset=data,
        callbacks=[seen],
        **options,
    )
    trainer.train()
    return seen.found, trainer.state.log_history[0]["loss"]


def expected(make: Callable[[int], nn.Module], data: Rows, shifted: bool) -> tuple[dict[str, Tensor], float]:
    program = bpc.compile(make(0), SPEC)
    progress_at_the_middle(program)
    loss = whole_batch_loss(program.module.train(), make(1).eval(), program, data, shifted)
    loss.backward()
    named = program.module.named_parameters()
    return {name: p.grad for name, p in named if p.grad is not None}, float(loss.detach())


def assert_same(found: tuple[dict[str, Tensor], float], wanted: tuple[dict[str, Tensor], float]) -> None:
    assert found[0].keys() == wanted[0].keys()
    assert any("block_masks" in name for name in wanted[0])
    for name, gradient in wanted[0].items():
        torch.testing.assert_close(found[0][name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    assert found[1] == pytest.approx(wanted[1], rel=1e-4)


@pytest.mark.parametrize("make", [classifier, tagger, language_model, unnamed_language_model])
@pytest.mark.parametrize("micro", [8, 2])
def test_a_step_is_the_mean_over_its_items(make: Callable[[int], nn.Module], micro: int, arguments: Make) -> None:
    data = rows(make.__name__)
    args = arguments(
        max_steps=1,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=8 // micro,
        max_grad_norm=0.0,
        train_sampling_strategy="sequential",
    )
    assert_same(run(make, data, args), expected(make, data, make.__name__.endswith("language_model")))


def test_a_loss_function_of_the_users_keeps_the_proportion(arguments: Make) -> None:
    """transformers' contract: it divides by num_items_in_batch itself."""

    def loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        return F.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch

    data = rows("classifier")
    args = arguments(max_steps=1, per_device_train_batch_size=2, gradient_accumulation_steps=4, max_grad_norm=0.0)
    assert_same(run(classifier, data, args, compute_loss_func=loss), expected(classifier, data, False))


def test_a_subclass_that_computes_its_loss_keeps_lambda(arguments: Make) -> None:
    class Silent(Trainer):
        def compute_loss(self, model: nn.Module, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            outputs = model(**inputs)
            loss = 0.0 * outputs.logits.sum()
            return (loss, outputs) if return_outputs else loss

    args = arguments(max_steps=1, per_device_train_batch_size=2, gradient_accumulation_steps=4, max_grad_norm=0.0)
    found, logged = run(classifier, rows("classifier"), args, Silent)
    program = bpc.compile(classifier(0), SPEC)
    program.set_progress(0.5)
    penalty = program.regularization()
    penalty.backward()
    for name, scores in program.mask_set.scores.items():
        assert scores.grad is not None
        torch.testing.assert_close(found[f"block_masks.scores.{name}"], scores.grad, rtol=1e-5, atol=1e-8)
    assert logged == pytest.approx(float(penalty.detach()), rel=1e-4)
