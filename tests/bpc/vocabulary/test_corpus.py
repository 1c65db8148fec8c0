"""What is kept of a corpus, and what of other texts that covers."""

from __future__ import annotations

from collections import Counter

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from bpc.vocabulary.corpus import Limits, choose, compare, count_tokens
from bpc.vocabulary.errors import VocabularyError
from passes.verify.errors import VerificationError

COUNTS = Counter({5: 60, 6: 30, 7: 9, 8: 1})


def alone(index: int) -> set[int]:
    return {index}


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        (Limits(), {0, 5, 6, 7, 8}),
        (Limits(min_count=9), {0, 5, 6, 7}),
        (Limits(coverage=0.9), {0, 5, 6}),
        (Limits(coverage=0.91), {0, 5, 6, 7}),
        (Limits(keep_tokens=3), {0, 5, 6}),
        (Limits(keep_tokens=4, min_count=30), {0, 5, 6}),
    ],
)
def test_the_most_frequent_tokens_are_kept_within_every_limit(limits: Limits, kept: set[int]) -> None:
    assert choose(COUNTS, {0}, alone, limits) == kept


def test_what_a_token_needs_counts_into_the_limit() -> None:
    """6 needs two more tokens, for which there is no room; 7 is kept in its place."""
    kept = choose(COUNTS, {0}, lambda index: {6, 10, 11} if index == 6 else {index}, Limits(keep_tokens=3))
    assert kept == {0, 5, 7}


def test_a_limit_below_what_has_to_stay_is_refused() -> None:
    with pytest.raises(VocabularyError, match=r"2 tokens are too few.* 3"):
        choose(COUNTS, {0, 1, 2}, alone, Limits(keep_tokens=2))


def words(*names: str) -> Tokenizer:
    made = Tokenizer(models.WordLevel({name: i for i, name in enumerate(["<unk>", *names])}, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def test_coverage_counts_tokens_and_whole_texts() -> None:
    full, small = words("a", "b", "c"), words("a", "c")
    texts = ["a c", "a b", "zzz", "c c c"]
    assert count_tokens(full, texts) == {1: 2, 2: 1, 3: 4, 0: 1}
    covered = compare(full, small, {0: 0, 1: 1, 3: 2}, texts, 0)
    assert (covered.tokens, covered.tokens_kept, covered.texts, covered.texts_whole) == (8, 7, 4, 3)
    assert covered.examples == ("a c", "zzz", "c c c")
    assert str(covered) == "87.500% of 8 tokens, 75.00% of 4 texts wholly"


def test_a_text_of_kept_tokens_that_comes_out_otherwise_is_an_error() -> None:
    with pytest.raises(VerificationError, match=r"the reduced tokenizer makes .*'a', '<unk>'.* of 'a b'"):
        compare(words("a", "b"), words("a", "c"), {0: 0, 1: 1, 2: 2}, ["a b"], 0)
