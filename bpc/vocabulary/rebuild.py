"""A transformers tokenizer with another tokenizer.json."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from bpc.vocabulary.errors import VocabularyError

# All but these hold a vocabulary: vocab.txt, merges.txt and the like.
_KEPT = ("tokenizer_config.json", "special_tokens_map.json", "*.jinja", "additional_chat_templates/*")


def backend_json(tokenizer: Any) -> str:
    """The tokenizer.json of a transformers tokenizer. Raises `VocabularyError` for one that has none."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise VocabularyError(
            f"{type(tokenizer).__name__} has no tokenizer.json (it is no tokenizer of the `tokenizers` library), which "
            "is what is rewritten: convert it to one first"
        )
    return backend.to_str()


def bare(text: str) -> Tokenizer:
    """The tokenizer of a tokenizer.json, with neither padding nor truncation."""
    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def rebuilt(tokenizer: Any, text: str, ids: Mapping[str, int]) -> Any:
    """A tokenizer like ``tokenizer`` with ``text`` as its tokenizer.json, as it will be when it is read from a file.

    ``ids``: {token: id} that it has to have. Raises `VocabularyError` where its class makes another of it.
    """
    with tempfile.TemporaryDirectory(prefix="bpc-") as folder:
        tokenizer.save_pretrained(folder)
        keep = {file for pattern in _KEPT for file in Path(folder).glob(pattern)}
        for file in Path(folder).rglob("*"):
            if file.is_file() and file not in keep:
                file.unlink()
        (Path(folder) / "tokenizer.json").write_text(text, encoding="utf-8")
        try:
            made = type(tokenizer).from_pretrained(folder, local_files_only=True)
        except Exception as error:  # each class has its own way to read the file
            raise VocabularyError(
                f"{type(tokenizer).__name__} does not read a smaller vocabulary: {type(error).__name__}: {error}"
            ) from error
    made.name_or_path = tokenizer.name_or_path
    made.init_kwargs["name_or_path"] = tokenizer.name_or_path
    found: dict[str, int] = made.backend_tokenizer.get_vocab(with_added_tokens=True)
    if found != ids:
        token = min(token for token, _ in found.items() ^ ids.items())
        raise VocabularyError(
            f"{type(tokenizer).__name__} does not keep to its tokenizer.json: {token!r} has the id {found.get(token)} "
            f"in it, where {ids.get(token)} was written"
        )
    return made
