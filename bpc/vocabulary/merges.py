"""Which merges of a BPE model lead to which tokens.

A word is merged pair by pair, the pair of the lowest rank first. With fewer merges, in the same order, it is merged in
the same way as long as every merge that was applied is still there. Those applied inside a token's own span are the
ones that make the token out of its characters alone: nothing reaches over the span's ends, or the token would not have
come out. So a token needs the merges of its own derivation, and the tokens in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

Pair = tuple[str, str]


class Merges:
    """The merges of a BPE model, in order of rank.

    ``prefix``: what continuing pieces begin with; a merge takes it away from the right part. ``affixed``: pieces carry
    a prefix or a suffix, so that the characters a token begins as are not those of its string.
    """

    def __init__(self, pairs: Sequence[Pair], prefix: str = "", *, affixed: bool = False) -> None:
        self.pairs = pairs
        self._prefix, self._affixed = prefix, affixed
        self._rank = {pair: rank for rank, pair in enumerate(pairs)}  # of a pair given twice, the last counts
        self._making: dict[str, list[Pair]] = {}
        for pair in self._rank:
            self._making.setdefault(self.result(pair), []).append(pair)

    def result(self, pair: Pair) -> str:
        """The token that a merge makes."""
        return pair[0] + pair[1][len(self._prefix) :]

    def needed(self, token: str) -> set[Pair]:
        """All merges that can be applied on the way to a token, those to its parts included."""
        found: set[Pair] = set()
        todo, seen = [token], {token}
        while todo:
            for pair in self._derivation(todo.pop()) - found:
                found.add(pair)
                parts = {*pair} - seen
                seen |= parts
                todo += parts
        return found

    def _derivation(self, token: str) -> set[Pair]:
        """The merges that make a token of its characters; where these do not lead to it, all that end in it."""
        symbols, applied = list(token), set[Pair]()
        while len(symbols) > 1 and not self._affixed:
            ranks = [self._rank.get(pair, len(self.pairs)) for pair in pairwise(symbols)]
            at = min(range(len(ranks)), key=ranks.__getitem__)  # the leftmost of several
            if ranks[at] == len(self.pairs):
                break
            pair = (symbols[at], symbols[at + 1])
            applied.add(pair)
            symbols[at : at + 2] = [self.result(pair)]
        return applied if symbols == [token] else set(self._making.get(token, ()))
