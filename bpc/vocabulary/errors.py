"""What a vocabulary that cannot be reduced raises."""

from __future__ import annotations

from bpc.errors import MendableError


class VocabularyError(MendableError):
    """A tokenizer or a model whose vocabulary cannot be reduced; the message says why, and what to do."""
