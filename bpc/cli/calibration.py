"""Files of unlabelled examples, as what `bpc.prune_once` calibrates a model of a directory with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from torch import nn

from bpc.cli.data import read_columns, read_texts
from bpc.oneshot.batches import token_chunks
from bpc.terminal.errors import CommandError


def read_examples(
    model: nn.Module,
    tokenizer: Any,
    path: Path,
    text: str,
    pair: str | None,
    *,
    samples: int,
    max_length: int,
    batch_size: int,
) -> list[Any]:
    """Texts, rows of token ids (pairs), or batches of running text for a causal language model.

    Raises `CommandError` for a model that reads no texts and for files that hold none.
    """
    if getattr(model, "main_input_name", "input_ids") != "input_ids":
        raise CommandError(
            f"{type(model).__name__} reads {model.main_input_name}, not texts: call bpc.prune_once() from Python with "
            "batches of what it reads, e.g. a DataLoader over processed images"
        )
    if tokenizer is None:
        raise CommandError(f"the model's directory has no tokenizer, and {path} holds texts; save one into it")
    if not path.is_file():
        raise CommandError(f"{path} is no file; give one of texts (.txt, .csv, .tsv or .jsonl)")
    if pair is not None:
        rows = read_columns(path, (text, pair))[:samples]
        encoded = [tokenizer(row[text], row[pair], truncation=True, max_length=max_length) for row in rows]
        return [dict(row) for row in encoded]
    texts = read_texts(path, text)
    if isinstance(model, transformers.GenerationMixin) and not getattr(model.config, "is_encoder_decoder", False):
        per_batch = max(1, batch_size * max_length // 1024)
        return list(token_chunks(texts, tokenizer, samples=samples, length=max_length, batch_size=per_batch))
    return list(texts)
