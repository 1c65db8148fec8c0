"""Cuts of what a cut left, as cuts of the whole."""

from __future__ import annotations

import torch

from passes.plan.compose import cuts_after, folds_after, with_new_biases
from passes.plan.data import Cut, Fold, cut_tensor

FIRST = (Cut("w", (4, 6), {1: (0, 2, 3, 5)}), Cut("e", (9, 6), {1: (0, 2, 3, 5)}))


def test_both_cuts_at_once_give_what_one_after_the_other_does() -> None:
    then = (Cut("w", (4, 4), {0: (1, 3), 1: (0, 3)}, (3,), 0), Cut("b", (4,), {0: (1, 3)}))
    joined = {cut.parameter: cut for cut in cuts_after(FIRST, then)}
    weight = torch.randn(4, 6)
    torch.testing.assert_close(cut_tensor(weight, joined["w"]), cut_tensor(cut_tensor(weight, FIRST[0]), then[0]))
    assert joined == {
        "w": Cut("w", (4, 6), {0: (1, 3), 1: (0, 5)}, (3,), 0),
        "e": FIRST[1],
        "b": then[1],
    }


def test_cleared_rows_along_a_cut_dim_are_counted_before_it() -> None:
    (joined,) = cuts_after([Cut("w", (6, 2), {0: (1, 2, 4)})], [Cut("w", (3, 2), {}, (0, 2), 0)])
    assert (joined.keep, joined.cleared) == ({0: (1, 2, 4)}, (1, 4))


def test_folded_columns_are_counted_before_the_cut() -> None:
    folds = (Fold("w", "b", False, 1, (1, 3), (0.5, 2.0)), Fold("v", "b", False, 1, (1,), (1.0,)))
    assert [fold.columns for fold in folds_after(FIRST, folds)] == [(2, 5), (1,)]


def test_a_bias_that_folding_added_is_cut_with_the_rows_of_its_weight() -> None:
    first = (Cut("w", (4, 6), {0: (1, 3)}), Cut("v", (4, 6), {1: (0, 2)}))
    folds = [Fold(name, f"{name}.bias", True, 1, (0,), (1.0,)) for name in ("w", "v")]
    assert with_new_biases(first, folds) == (*first, Cut("w.bias", (4,), {0: (1, 3)}))
