"""transformers' fusions as a pass."""

from __future__ import annotations

from bpc.emit.fusions import TransformersFusions
from tests.bpc.emit.models import numbers, operators, parse


def test_a_file_with_nothing_to_fuse_is_not_modified() -> None:
    model = parse("(float[n, 4] x) => (float[n, 3] y)", "y = MatMul(x, w)", {"w": numbers(4, 3)})
    assert not TransformersFusions()(model).modified
    assert operators(model) == {"MatMul": 1}
