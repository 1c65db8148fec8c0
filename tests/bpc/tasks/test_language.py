"""Text as the answer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

from bpc.tasks import TASKS, TaskError
from bpc.tasks.evaluate import by_module, evaluate


def test_running_text_is_cut_into_pieces_and_scored_as_the_models_loss(tokenizer: Any, rows: Any) -> None:
    data = rows(text=["the film was good", "ada wrote it in london", "the plot was bad"])
    task = TASKS["causal-lm"](tokenizer, max_length=6)
    pieces = task.encode(data)
    assert [len(piece["input_ids"]) for piece in pieces] == [6, 6]  # of 13 tokens
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2, n_positions=16)).eval()
    batch = task.collator()(pieces)
    [found] = evaluate(task, by_module(model), data)
    assert found.value == pytest.approx(float(model(**batch).loss.exp()), rel=1e-5)
    with pytest.raises(TaskError, match="13 tokens in all, less than one piece of 64"):
        TASKS["causal-lm"](tokenizer, max_length=64).encode(data)


def test_a_target_is_scored_without_its_padding(tokenizer: Any, rows: Any) -> None:
    data = rows(source=["the film was good", "ada"], target=["good", "ada wrote it in london"])
    task = TASKS["seq2seq"](tokenizer, max_length=16)
    torch.manual_seed(0)
    config = T5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    model = T5ForConditionalGeneration(config).eval()
    batch = task.collator(model)(task.encode(data))
    assert (batch["labels"] == -100).any()
    [found] = evaluate(task, by_module(model), data, model=model)
    assert found.value == pytest.approx(float(model(**batch).loss.exp()), rel=1e-5)
