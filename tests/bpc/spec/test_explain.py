"""What a spec matches, as a table."""

from __future__ import annotations

import io
import re

from rich.console import Console

from bpc.spec import explain, load_spec, resolve
from passes.structure.roles import Roles


def test_explain_lists_what_is_matched_and_what_is_not(bert: Roles) -> None:
    spec = load_spec({"preset": "struct", "regularization": {"groups": {"ffn": 0.5}}})
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(explain(spec, bert, resolve(spec, bert)))
    lines = [re.split(r"\s{2,}", line.strip()) for line in console.export_text().splitlines()]
    assert "12 of 14 linears masked, 93.8 % of 17,472 weights" in lines[0][0]
    assert ["attention.query", "2", "4 x 8", "32 x 32", "8 x 32", "4 x 1", "4", "masked", "attention", "20"] in lines
    assert ["ffn.down", "2", "32 x 64", "32 x 1", "1 x 64", "64 shared", "kept", "ffn", "10"] in lines
    assert ["mlp.up", "1", "32 x 32", "-"] in lines
    console.print(explain(spec, bert, resolve(spec, bert), every_weight=True))
    assert "bert.pooler.dense.weight" in console.export_text()
