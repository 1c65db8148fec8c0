"""What a traced graph carries, and the refusal of graphs from elsewhere."""

from __future__ import annotations

import pytest

from passes.ir.info import META_KEY, TraceInfo, trace_info, without_reference
from tests.passes.sketch import Sketch


def test_a_rewritten_graph_loses_its_reference_and_nothing_else() -> None:
    module = Sketch().done()
    with pytest.raises(ValueError, match="carries no trace information"):
        trace_info(module)
    info = TraceInfo((), {}, None, aliases={"a": "b"}, reference=module)
    left = without_reference({META_KEY: info, "other": 1})
    assert (left[META_KEY].reference, left[META_KEY].aliases, left["other"]) == (None, {"a": "b"}, 1)
    assert without_reference({"other": 1}) == {"other": 1}
    assert info.reference is module
