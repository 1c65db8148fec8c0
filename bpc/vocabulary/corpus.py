"""What a corpus uses of a vocabulary: counts, what to keep, and how much of some texts that covers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from tokenizers import Encoding, Tokenizer

from bpc.vocabulary.errors import VocabularyError
from passes.verify.errors import VerificationError

_AT_ONCE = 5000  # texts


@dataclass(frozen=True)
class Coverage:
    """How much of some texts a reduced vocabulary covers: tokens that it has, texts that it tokenises as before.

    ``examples``: up to a hundred of these texts.
    """

    tokens: int
    tokens_kept: int
    texts: int
    texts_whole: int
    examples: tuple[str, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        tokens, texts = (part / max(1, of) for part, of in self._shares)
        return f"{tokens:.3%} of {self.tokens:,} tokens, {texts:.2%} of {self.texts:,} texts wholly"

    @property
    def _shares(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return (self.tokens_kept, self.tokens), (self.texts_whole, self.texts)


@dataclass(frozen=True)
class Limits:
    """Which of a corpus's tokens are kept, the most frequent first; every limit that is given holds.

    ``keep_tokens``: tokens of the whole reduced vocabulary at most. ``min_count``: occurrences at least. ``coverage``:
    no more than it takes to cover this share of the corpus's tokens.
    """

    keep_tokens: int | None = None
    min_count: int = 1
    coverage: float | None = None


def count_tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> Counter[int]:
    """{id: occurrences in the texts}, without the special tokens that stand around each."""
    return Counter(index for encoded in _encoded(tokenizer, texts) for index in encoded.ids)


def choose(counts: Counter[int], required: set[int], needed: Callable[[int], set[int]], limits: Limits) -> set[int]:
    """Ids to keep: ``required`` and, within the limits, those the corpus uses most with what they need.

    Raises `VocabularyError` where the required tokens alone are more than there may be.
    """
    kept = set(required)
    for index in required:
        kept |= needed(index)
    if limits.keep_tokens is not None and len(kept) > limits.keep_tokens:
        raise VocabularyError(
            f"{limits.keep_tokens} tokens are too few: special tokens, bytes and single characters alone are "
            f"{len(kept)}. Keep at least as many, or only the characters that the texts use"
        )
    enough = counts.total() * (1 if limits.coverage is None else limits.coverage)
    covered = sum(counts[index] for index in kept)
    for index, count in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])):
        if count < limits.min_count or covered >= enough:
            break
        new = needed(index) - kept
        if limits.keep_tokens is None or len(kept) + len(new) <= limits.keep_tokens:
            kept |= new
            covered += sum(counts[part] for part in new)
    return kept


def compare(
    full: Tokenizer, small: Tokenizer, new: Mapping[int, int], texts: Sequence[str], unknown: int | None
) -> Coverage:
    """How much of some texts ``small`` tokenises as ``full`` does; ``new``: {id: new id} of the kept tokens.

    Raises `VerificationError` for a text of kept tokens that comes out otherwise. Where an unknown word is in it, which
    some of the dropped pieces may have led to, it only counts as not covered.
    """
    tokens = kept = whole = number = 0
    examples: list[str] = []
    for text, before, after in zip(texts, _encoded(full, texts), _encoded(small, texts), strict=True):
        expected = [new.get(index) for index in before.ids]
        here = sum(index is not None for index in expected)
        tokens, kept, number = tokens + len(expected), kept + here, number + 1
        if expected == after.ids:
            whole += 1
            if expected and len(examples) < 100:
                examples.append(text)
        elif here == len(expected) and unknown not in before.ids:
            made, wanted = ([t.id_to_token(i) for i in e.ids[:20]] for t, e in ((small, after), (full, before)))
            raise VerificationError(f"the reduced tokenizer makes {made} of {text[:80]!r}, the full one {wanted}")
    return Coverage(tokens, kept, number, whole, tuple(examples))


def _encoded(tokenizer: Tokenizer, texts: Sequence[str]) -> Iterator[Encoding]:
    remaining = iter(texts)
    while batch := list(islice(remaining, _AT_ONCE)):
        yield from tokenizer.encode_batch_fast(batch, add_special_tokens=False)
