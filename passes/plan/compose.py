"""Two cuts one after the other, as one: a plan counts indices in the traced model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from passes.plan.data import Cut, Fold


def cuts_after(first: Iterable[Cut], then: Iterable[Cut]) -> tuple[Cut, ...]:
    """Cuts of the model that ``first`` left, put together with these: indices are those before both."""
    done = {cut.parameter: cut for cut in first}
    for cut in then:
        before = done.get(cut.parameter)
        done[cut.parameter] = cut if before is None else _joined(before, cut)
    return tuple(done.values())


def with_new_biases(first: Iterable[Cut], folds: Iterable[Fold]) -> tuple[Cut, ...]:
    """``first``, and the cuts of biases that folding added afterwards, which are as long as their weights have rows."""
    done = {cut.parameter: cut for cut in first}
    for fold in folds:
        weight, rows = done.get(fold.weight), 1 - fold.in_dim
        if fold.new_bias and weight is not None and rows in weight.keep and fold.bias not in done:
            done[fold.bias] = Cut(fold.bias, (weight.shape[rows],), {0: weight.keep[rows]})
    return tuple(done.values())


def folds_after(first: Iterable[Cut], folds: Iterable[Fold]) -> tuple[Fold, ...]:
    """Folds of the model that ``first`` left; columns are those before it."""
    kept = {cut.parameter: cut.keep for cut in first}
    return tuple(
        replace(fold, columns=_through(kept.get(fold.weight, {}).get(fold.in_dim), fold.columns)) for fold in folds
    )


def _joined(before: Cut, cut: Cut) -> Cut:
    keep = dict(before.keep)
    for dim, kept in cut.keep.items():
        keep[dim] = _through(before.keep.get(dim), kept)
    return Cut(
        cut.parameter,
        before.shape,
        dict(sorted(keep.items())),
        _through(before.keep.get(cut.cleared_dim), cut.cleared),
        cut.cleared_dim,
    )


def _through(kept: tuple[int, ...] | None, indices: tuple[int, ...]) -> tuple[int, ...]:
    return indices if kept is None else tuple(kept[index] for index in indices)
