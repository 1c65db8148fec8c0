"""Files of unlabelled examples, as what `bpc.prune_once` calibrates a model of a directory with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers
from torch import Tensor, nn

from bpc import configs
from bpc.cli.trust import TRUSTED
from bpc.oneshot.batches import token_chunks
from bpc.tasks.data import read_texts
from bpc.terminal.errors import CommandError


def read_examples(
    model: nn.Module,
    tokenizer: Any,
    directory: Path,
    path: Path,
    text: str,
    pair: str | None,
    *,
    samples: int,
    max_length: int,
    batch_size: int,
) -> list[Any]:
    """Texts, rows of token ids (pairs), batches of running text for a causal language model, or batches of images.

    ``directory`` is the model's, which may hold an image processor; ``path`` a file of texts or a folder of images.
    Raises `CommandError` for a model that reads neither and for data that do not fit it.
    """
    reads = getattr(model, "main_input_name", "input_ids")
    if reads == "pixel_values":
        return list(_images(directory, path, samples, batch_size))
    if reads != "input_ids":
        raise CommandError(
            f"{type(model).__name__} reads {reads}, not texts or images: call bpc.prune_once() from Python with "
            "batches of what it reads, e.g. a DataLoader"
        )
    if tokenizer is None:
        raise CommandError(f"the model's directory has no tokenizer, and {path} holds texts; save one into it")
    if not path.is_file():
        raise CommandError(f"{path} is no file; give one of texts (.txt, .csv, .tsv, .jsonl, .json or .parquet)")
    texts = read_texts(str(path), text, pair)
    if pair is not None:
        return [dict(tokenizer(*row, truncation=True, max_length=max_length)) for row in texts[:samples]]
    if isinstance(model, transformers.GenerationMixin) and not getattr(model.config, "is_encoder_decoder", False):
        per_batch = max(1, batch_size * max_length // 1024)
        return list(token_chunks(texts, tokenizer, samples=samples, length=max_length, batch_size=per_batch))
    return list(texts)


def _images(directory: Path, folder: Path, samples: int, batch_size: int) -> Iterator[dict[str, Tensor]]:
    """Images of a folder and of those in it (a folder a class, say), as the model's processor prepares them.

    Of more than ``samples``, every n-th in the order of their paths, so that all folders have their part.
    """
    from PIL import Image, UnidentifiedImageError

    if not folder.is_dir():
        raise CommandError(f"{folder} is no folder; the model reads images: give a folder of them")
    known = Image.registered_extensions()
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in known and file.is_file())
    if not files:
        raise CommandError(f"{folder} holds no images (.jpg, .png, …)")
    try:
        processor = configs.read_image_processor(directory, TRUSTED.get())
    except configs.ConfigError as error:
        raise CommandError(str(error)) from error
    files = [files[i * len(files) // min(samples, len(files))] for i in range(min(samples, len(files)))]
    for start in range(0, len(files), batch_size):
        opened = []
        for file in files[start : start + batch_size]:
            try:
                with Image.open(file) as image:
                    opened.append(image.convert("RGB"))
            except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
                raise CommandError(f"{file} cannot be read as an image: {error}") from error
        yield {"pixel_values": processor(opened, return_tensors="pt")["pixel_values"]}
