"""Grouped heads after a cut: even groups stay groups, uneven ones select their key head."""

from __future__ import annotations

import pytest
import torch

from passes.ir.graph import get_attribute
from passes.rewrite.repeats import rewrite_repeats
from tests.passes.sketch import Sketch

aten = torch.ops.aten
T, F = True, False


@pytest.mark.parametrize(
    ("live", "copies", "owners"),
    [([T, F, F, F, T, F], 1, None), ([F, F, F, T, T, T], 3, None), ([T, T, F, T, F, F], None, [0, 0, 1])],
)
def test_interleaved_groups(live: list[bool], copies: int | None, owners: list[int] | None) -> None:
    sketch = Sketch()
    x = sketch.free("b", 2, 4)
    out = sketch.call(aten.repeat_interleave.self_int, x, 3, 1)
    reader = sketch.call(aten.relu.default, out)
    coupling = sketch.coupling({reader: torch.tensor(live)[:, None]})
    rewrite_repeats(sketch.module, coupling)
    if owners is None:
        assert out.args == (x, copies, 1)
        return
    chosen = reader.args[0]
    assert isinstance(chosen, torch.fx.Node)
    assert chosen.target is aten.index_select.default
    assert get_attribute(sketch.module, str(chosen.args[2].target)).tolist() == owners  # type: ignore[union-attr]


def test_copies_that_nobody_keeps_go_beside_a_source_that_others_read() -> None:
    """A dead piece of a concatenation: the key heads stay for their other reader."""
    sketch = Sketch()
    x = sketch.free("b", 2, 4)
    out = sketch.call(aten.repeat_interleave.self_int, x, 3, 1)
    sketch.call(aten.relu.default, x)
    coupling = sketch.coupling({x: torch.tensor([T, T])[:, None], out: torch.tensor([F] * 6)[:, None]})
    rewrite_repeats(sketch.module, coupling)
    assert out.args == (x, 0, 1)
