"""Text as the answer: the next token, or another text. Both are judged by perplexity."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from bpc.tasks.score import Metric, exponential
from bpc.tasks.task import IGNORED, Task, TaskError

if TYPE_CHECKING:
    from datasets import Dataset

_PERPLEXITY = Metric("perplexity", exponential, higher_is_better=False, share=False)


class LanguageModelling(Task):
    """The next token of running text, which is cut into pieces of ``max_length`` tokens; a rest is left out."""

    name = "causal-lm"
    auto_class = "AutoModelForCausalLM"
    roles: ClassVar = {"text": "text"}
    usual_length = 256
    metrics = (_PERPLEXITY,)

    def encode(self, rows: Dataset) -> Any:
        length = self.max_length
        end = self.processor.eos_token_id
        texts = rows["text"]
        encoded = self.processor(list(texts), add_special_tokens=False, return_attention_mask=False)["input_ids"]
        stream = list(chain.from_iterable([*ids, end] if end is not None else ids for ids in encoded))
        pieces = [stream[start : start + length] for start in range(0, len(stream) - length + 1, length)]
        if not pieces:
            raise TaskError(
                f"the texts have {len(stream):,} tokens in all, less than one piece of {length}: give more, or a "
                "smaller --max-length"
            )
        return [{"input_ids": piece, "attention_mask": [1] * length, "labels": piece} for piece in pieces]

    def collator(self, model: Any = None) -> Any:
        from transformers import DefaultDataCollator

        return DefaultDataCollator()

    def reduce(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        return nats(outputs["logits"][:, :-1], batch["labels"][:, 1:])


class Sequence2Sequence(Task):
    """Another text: a summary, a translation. Perplexity is that of the target, token by token."""

    name = "seq2seq"
    auto_class = "AutoModelForSeq2SeqLM"
    roles: ClassVar = {"source": "text to read", "target": "text to write"}
    metrics = (_PERPLEXITY,)

    def encode(self, rows: Dataset) -> Any:
        source, target = rows["source"], rows["target"]
        cut = {"truncation": True, "max_length": self.max_length}
        read = self.processor(list(source), **cut)
        written = self.processor(text_target=list(target), **cut)["input_ids"]
        return [
            {"input_ids": ids, "attention_mask": mask, "labels": labels}
            for ids, mask, labels in zip(read["input_ids"], read["attention_mask"], written, strict=True)
        ]

    def collator(self, model: Any = None) -> Any:
        from transformers import DataCollatorForSeq2Seq

        return DataCollatorForSeq2Seq(self.processor, model=model, label_pad_token_id=IGNORED)

    def reduce(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Tensor:
        return nats(outputs["logits"], batch["labels"])


def nats(logits: Tensor, labels: Tensor) -> Tensor:
    """(nats, tokens) of every row: logits (batch, length, vocabulary), labels (batch, length)."""
    losses = F.cross_entropy(logits.float().transpose(1, 2), labels, reduction="none", ignore_index=IGNORED)
    return torch.stack([losses.double().sum(-1), (labels != IGNORED).double().sum(-1)], -1)
