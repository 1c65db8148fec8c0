"""Evaluation by generation, of the model that would be compiled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainingArguments, T5Config, T5ForConditionalGeneration

import bpc


def t5(seed: int) -> T5ForConditionalGeneration:
    torch.manual_seed(seed)
    sizes = {"vocab_size": 30, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
    return T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0, eos_token_id=1, pad_token_id=0))


class Padding:
    """As much of a tokenizer as DataCollatorForSeq2Seq asks for, where all rows have one length."""

    padding_side = "right"

    def pad(self, features: list[dict[str, Any]], **_: Any) -> dict[str, torch.Tensor]:
        return {name: torch.tensor([row[name] for row in features]) for name in features[0]}


def test_metrics_see_what_the_final_masks_generate(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, 30, (16, 6), generator=generator)
    data = [{"input_ids": row.tolist(), "labels": row[:4].tolist()} for row in tokens]
    program = bpc.compile(t5(0), "struct")
    with torch.no_grad():  # below the final threshold and above the first: gone in evaluation, there in training
        for scores in program.score_parameters():
            scores[::2] = -5.0
    seen: list[Any] = []
    trainer = bpc.Seq2SeqTrainer(
        program=program,
        teacher=t5(1),
        args=Seq2SeqTrainingArguments(
            str(tmp_path), max_steps=2, per_device_train_batch_size=8, predict_with_generate=True, report_to="none",
            generation_max_length=7, disable_tqdm=True, use_cpu=True, save_strategy="no",
        ),
        score_learning_rate=1e-6,
        train_dataset=data,
        eval_dataset=data[:4],
        data_collator=DataCollatorForSeq2Seq(Padding(), model=program.module),
        compute_metrics=lambda p: seen.append(p.predictions) or {"tokens": float(p.predictions.shape[1])},
    )  # fmt: skip
    trainer.train()
    assert "eval_tokens" in trainer.evaluate()
    expected = program.masked_model().eval().generate(input_ids=tokens[:4], max_length=7)
    assert np.array_equal(seen[-1][:, : expected.shape[1]], expected.numpy())
    assert not np.array_equal(
        expected.numpy(), program.detach().eval().generate(input_ids=tokens[:4], max_length=7).numpy()
    )
