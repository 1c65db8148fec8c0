"""A choice of indices answers like the value it stands in for: its sizes, and what its dims keep."""

from __future__ import annotations

import torch

from passes.ir.graph import get_attribute
from passes.ir.sizes import is_symbolic, shape_of
from passes.ops.facts import axis
from passes.rewrite.selected import select
from tests.passes.sketch import Sketch, keeps

aten = torch.ops.aten
T, F = True, False


def test_a_choice_has_the_sizes_and_keep_sets_of_what_it_stands_for() -> None:
    sketch = Sketch()
    source, reader = sketch.free("b", 2, 4), sketch.free("b", 6, 4, name="reader")
    coupling = sketch.coupling(
        {source: torch.tensor([[T, T, F, T], [T, F, F, T]]), reader: torch.tensor([[T], [F], [T], [F], [F], [T]])}
    )
    heads = axis(reader, 1)
    assert heads is not None
    chosen = select(source, 1, torch.tensor([0, 0, 1]), heads, coupling, "index")
    assert get_attribute(sketch.module, "index").tolist() == [0, 0, 1]
    assert is_symbolic(shape_of(chosen)[0])
    assert shape_of(chosen)[1:] == (6, 4)
    assert keeps(coupling, chosen, 1) == [T, F, T, F, F, T]
    assert keeps(coupling, chosen, 2) == [T, T, F, T]
