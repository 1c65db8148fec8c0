"""Tables read up to a length."""

from __future__ import annotations

import numpy as np
import pytest

from bpc.emit.tables import IndexTables
from tests.bpc.emit.models import numbers, operators, parse, run

TABLE = numbers(1, 6, 2)


def sliced(start: int = 0, step: int = 1, axis: int = 1):  # type: ignore[no-untyped-def]
    """The first rows of a table, as many as x has; x is of any length, and the slice's length is that of x."""
    weights = {"table": TABLE, "start": np.array([start]), "axes": np.array([axis]), "step": np.array([step])}
    body = "n = Shape<start = 0, end = 1>(x) rows = Slice(table, start, n, axes, step) y = Identity(rows)"
    model = parse("(float[length] x) => (float[1, length, 2] y)", body, weights)
    rows = next(node for node in model.graph if node.op_type == "Slice").outputs[0]
    rows.shape = model.graph.outputs[0].shape
    return model


@pytest.mark.parametrize("axis", [1, -2])
def test_a_table_is_gathered_up_to_the_length_and_not_beyond(axis: int) -> None:
    model = sliced(axis=axis)
    assert IndexTables()(model).modified
    assert (operators(model)["Slice"], operators(model)["Gather"]) == (0, 1)
    for length in (1, 6):
        np.testing.assert_array_equal(run(model, x=numbers(length))[0], TABLE[:, :length])
    with pytest.raises(Exception, match="out of data bounds"):
        run(model, x=numbers(7))
    assert not IndexTables()(model).modified


def test_other_slices_are_left_alone() -> None:
    assert not IndexTables()(sliced(start=1)).modified
    assert not IndexTables()(sliced(step=2)).modified
