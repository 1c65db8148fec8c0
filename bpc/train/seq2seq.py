"""`bpc.Seq2SeqTrainer`: `bpc.Trainer` for models that are evaluated by what they generate."""

from __future__ import annotations

import transformers

from bpc.train.trainer import Trainer


class Seq2SeqTrainer(Trainer, transformers.Seq2SeqTrainer):
    """`bpc.Trainer`, evaluated as `transformers.Seq2SeqTrainer` does it.

    With ``Seq2SeqTrainingArguments(predict_with_generate=True)`` metrics see generated tokens: those of the model that
    would be compiled if training stopped there. Arguments are those of `bpc.Trainer`.
    """
