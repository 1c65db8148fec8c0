"""The data of a report, as text and in notebooks."""

from __future__ import annotations

from bpc.report.layers import Summary


def test_rows_end_with_the_totals(summary: Summary) -> None:
    assert summary.rows()[0][:3] == ("0", "2 / 4", "5 / 24")
    assert summary.rows()[-1][:3] == ("all", "6 / 8", "29 / 48")


def test_a_line_says_what_is_left_and_a_notebook_shows_the_rows(summary: Summary) -> None:
    estimated = "" if summary.compiled else ", estimated from masks"
    assert repr(summary) == f"Summary(2 layers, 6 of 8 heads left, 29 of 48 FFN dims left{estimated})"
    assert repr(summary.blocks[0]) == "BlockSummary(attention.0, 2 of 4 heads left)"
    assert all(f"<td>{cell}</td>" in summary._repr_html_() for row in summary.rows() for cell in row)
