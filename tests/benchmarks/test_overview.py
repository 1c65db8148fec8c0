"""docs/figures/overview.svg shows the committed numbers; ``python benchmarks/overview.py`` draws it again."""

from __future__ import annotations

from benchmarks.overview import ROOT, digest, numbers


def test_the_figure_follows_from_the_results() -> None:
    shown = numbers()
    assert len(shown["heads"]) == len(shown["dims"]) == 12
    assert all(len(points) == 3 for points in shown["curves"].values())
    assert f"numbers {digest(shown)}" in (ROOT / "docs" / "figures" / "overview.svg").read_text()
