"""What a vocabulary that cannot be reduced raises."""

from __future__ import annotations


class VocabularyError(ValueError):
    """A tokenizer or a model whose vocabulary cannot be reduced; the message says why, and what to do."""
