"""A teacher asked once says what it says when it is asked in every step, for every kind of output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import BertConfig, T5Config, T5ForConditionalGeneration, TrainingArguments

from bpc.train import Taught, Trainer, ask_once

BERT: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
LENGTHS = (5, 9, 2, 7, 3, 8)


def bert(name: str, classes: int = 3) -> Callable[[], Any]:
    return lambda: getattr(transformers, f"Bert{name}")(BertConfig(**BERT, num_labels=classes))


def t5() -> Any:
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0,
            pad_token_id=0, dropout_rate=0.0,
        )
    )  # fmt: skip


def rows(kind: str) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for i, length in enumerate(LENGTHS):
        ids = torch.randint(1, 40, (length,), generator=generator).tolist()
        labels: dict[str, Any] = {
            "one": {"labels": i % 3},
            "each": {"labels": [-100, *(k % 3 for k in range(length - 1))]},
            "span": {"start_positions": 1, "end_positions": 1},
            "text": {"labels": ids[: length // 2 + 1]},
            "none": {},
        }[kind]
        found.append({"input_ids": ids, "attention_mask": [1] * length, **labels})
    return found


def collate(kind: str, left: bool = False) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    fills = {"input_ids": 0, "attention_mask": 0, "labels": -100}

    def padded(values: list[Any], fill: int) -> torch.Tensor:
        if not isinstance(values[0], list):
            return torch.tensor(values)
        longest = max(map(len, values))
        spare = [[fill] * (longest - len(v)) for v in values]
        return torch.tensor([s + v if left else v + s for v, s in zip(values, spare, strict=True)])

    return lambda batch: {name: padded([row[name] for row in batch], fills.get(name, 0)) for name in batch[0]}


CASES = {
    "a class": (bert("ForSequenceClassification"), "one", False),
    "a class of every token": (bert("ForTokenClassification"), "each", False),
    "padding on the left": (bert("ForTokenClassification"), "each", True),
    "a span": (bert("ForQuestionAnswering", 2), "span", False),
    "a text": (t5, "text", False),
    "hidden states": (bert("Model"), "none", False),
}


@pytest.mark.parametrize("name", CASES)
def test_what_was_said_once_is_what_is_said_again(name: str, tmp_path: Path) -> None:
    make, kind, left = CASES[name]
    torch.manual_seed(0)
    teacher, student = make().train(), make()
    for module in teacher.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5  # a teacher speaks as in evaluation
    data, collator = rows(kind), collate(kind, left)
    taught = ask_once(teacher, data, collator, tmp_path / "t.safetensors", key="k", batch_size=4)
    assert isinstance(taught, Taught)
    options = {"distillation_weight": 1.0, "temperature": 2.0, "model": student, "data_collator": collator}
    arguments = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True, per_device_train_batch_size=3)
    live = Trainer(teacher=teacher, train_dataset=data, args=arguments, **options)
    once = Trainer(train_dataset=taught, args=arguments, **options)
    student.train()
    batches = [
        next(iter(torch.utils.data.DataLoader(source, 3, collate_fn=trainer.data_collator)))  # type: ignore[arg-type]
        for trainer, source in ((live, data), (once, taught))
    ]
    said = [n for n in batches[1] if n.startswith("teacher_")]
    assert said
    assert batches[1][said[0]].shape[0] == 3
    losses = [t.compute_loss(student, b) for t, b in zip((live, once), batches, strict=True)]
    assert losses[0] > 0
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-7)


def test_it_is_asked_again_only_for_another_key(tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = bert("ForSequenceClassification")()
    calls = []
    teacher.register_forward_hook(lambda *_: calls.append(None))
    asked = [
        ask_once(teacher, rows("one"), collate("one"), tmp_path / "t.safetensors", key=key) for key in ("a", "a", "b")
    ]
    assert len(calls) == 2
    first, second, _ = ([row["teacher_logits"] for row in one] for one in asked if one is not None)
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


def test_a_teacher_that_says_too_much_is_not_kept(tmp_path: Path) -> None:
    file = tmp_path / "t.safetensors"
    assert ask_once(t5(), rows("text"), collate("text"), file, key="k", largest=1000) is None
    assert not file.exists()


def test_a_run_on_what_was_said_trains(tmp_path: Path) -> None:
    torch.manual_seed(0)
    taught = ask_once(t5(), rows("text"), collate("text"), tmp_path / "t.safetensors", key="k")
    arguments = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True, max_steps=2, save_strategy="no")
    trainer = Trainer(model=t5(), train_dataset=taught, data_collator=collate("text"), args=arguments)
    assert trainer.train().training_loss > 0
