"""docs/figures/method.svg shows the committed numbers; ``python benchmarks/method/figure.py`` draws it again."""

from __future__ import annotations

from benchmarks.method.figure import ROOT, digest, numbers


def test_the_figure_follows_from_the_results() -> None:
    shown = numbers()
    assert any(name.startswith("gradual") for name in shown["validation"])
    assert f"numbers {digest(shown)}" in (ROOT / "docs" / "figures" / "method.svg").read_text()
