"""Which merges a token needs."""

from __future__ import annotations

from bpc.vocabulary.merges import Merges


def test_a_token_needs_its_own_derivation_and_not_every_way_to_it() -> None:
    """ "abc" comes out as ab + c, since that merge is the first; a + bc is another word's."""
    merges = Merges([("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc"), ("c", "d")])
    assert merges.needed("abc") == {("a", "b"), ("ab", "c")}
    assert merges.needed("a") == set()


def test_a_token_that_its_characters_do_not_merge_to_keeps_every_way_to_it() -> None:
    """The characters of "aab" merge to a + ab and no further: nothing more is known of the token."""
    merges = Merges([("a", "b"), ("a", "a"), ("aa", "b")])
    assert merges.needed("aab") == {("aa", "b"), ("a", "a")}


def test_the_leftmost_of_equal_pairs_is_merged_first() -> None:
    merges = Merges([("a", "a"), ("aa", "a"), ("a", "aa")])
    assert merges.needed("aaa") == {("a", "a"), ("aa", "a")}


def test_a_prefix_is_taken_away_from_the_right_part() -> None:
    merges = Merges([("a", "##b"), ("##b", "##c"), ("a", "##bc")], "##", affixed=True)
    assert merges.needed("abc") == {("a", "##bc"), ("##b", "##c")}
