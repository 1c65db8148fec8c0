"""Grouped heads after a cut: even groups stay groups, uneven ones select their key head."""

from __future__ import annotations

import pytest
import torch

from passes.ir.graph import get_attribute
from passes.rewrite.repeats import rewrite_repeats
from tests.passes.sketch import Sketch, keeps

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
    rewrite_repeats(coupling)
    if owners is None:
        assert out.args == (x, copies, 1)
        return
    chosen = reader.args[0]
    assert isinstance(chosen, torch.fx.Node)
    assert chosen.target is aten.index_select.default
    assert get_attribute(sketch.module, str(chosen.args[2].target)).tolist() == owners  # type: ignore[union-attr]


def test_expanded_groups_keep_as_many_copies_as_each_group_has() -> None:
    sketch = Sketch()
    x = sketch.free("b", 2, 4)
    expanded = sketch.call(aten.expand.default, sketch.call(aten.unsqueeze.default, x, 2), [-1, 2, 3, 4])
    out = sketch.call(aten.reshape.default, expanded, [-1, 6, 4])
    coupling = sketch.coupling({out: torch.tensor([F, T, F, F, F, T])[:, None]})
    rewrite_repeats(coupling)
    assert keeps(coupling, expanded, 2) == [T, F, F]


def test_fused_attention_with_uneven_groups_keeps_its_other_arguments() -> None:
    sketch = Sketch()
    q, k, v = (sketch.free("b", heads, 5, 2, name=name) for name, heads in (("q", 6), ("k", 2), ("v", 2)))
    out = sketch.call(aten.scaled_dot_product_attention.default, q, k, v, scale=0.3, enable_gqa=True)
    coupling = sketch.coupling({out: torch.tensor([T, T, F, T, F, F])[:, None, None]})
    rewrite_repeats(coupling)
    assert out.kwargs == {"scale": 0.3}
    chosen = out.args[1:]
    assert [n.target for n in chosen] == [aten.index_select.default] * 2  # type: ignore[union-attr]


def test_an_index_takes_a_free_name_and_is_no_part_of_the_state() -> None:
    sketch = Sketch()
    sketch.module.head_index_0 = "taken"
    out = sketch.call(aten.repeat_interleave.self_int, sketch.free("b", 2, 4), 3, 1)
    coupling = sketch.coupling({out: torch.tensor([T, T, F, T, F, F])[:, None]})
    rewrite_repeats(coupling)
    assert (sketch.module.head_index_0, sketch.module.head_index_0_.tolist()) == ("taken", [0, 0, 1])
    assert "head_index_0_" not in sketch.module.state_dict()


def test_copies_that_nobody_keeps_go_beside_a_source_that_others_read() -> None:
    """A dead piece of a concatenation: the key heads stay for their other reader."""
    sketch = Sketch()
    x = sketch.free("b", 2, 4)
    out = sketch.call(aten.repeat_interleave.self_int, x, 3, 1)
    sketch.call(aten.relu.default, x)
    coupling = sketch.coupling({x: torch.tensor([T, T])[:, None], out: torch.tensor([F] * 6)[:, None]})
    rewrite_repeats(coupling)
    assert out.args == (x, 0, 1)
