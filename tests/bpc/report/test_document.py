"""The report on disk: one page that holds everything, parsed as HTML and counted against the masks."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from torch import Tensor, fx, nn

import passes
from bpc.report.document import report_html, write_report
from tests.bpc.report.conftest import DIM, FFN, HEADS

HISTORY = [{"step": 10, "loss": 2.0, "density": 0.9}, {"step": 20, "loss": 1.0, "density": 0.5}]
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Elements that are open must be closed in order; ``cells``, ``ids`` and ``links`` are what tests look at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.links += [found[name] or "" for name in ("src", "href") if name in found]
        self.ids += [found["id"] or ""] if "id" in found else []
        if (found.get("class") or "").startswith("cell"):
            self.cells.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "title" and "svg" in self.open and "g" in self.open and self.cells:
            self.cells[-1] += data
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_page_holds_everything_and_asks_for_nothing(
    graph: fx.GraphModule, masks: dict[str, Tensor], result: passes.ShrinkResult, tmp_path: Path
) -> None:
    figures = (["", "original", "small"], [["accuracy", "80.40% ± 0.63%", "79.75% ± 0.64%"]])
    wanted = {"history": HISTORY, "commands": ["bpc prune --data a.csv"], "figures": figures}
    path = write_report(tmp_path / "report", graph, masks, result, **wanted)  # type: ignore[arg-type]
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert not re.search(r"https?://|@import|url\(", text)
    assert page.ids == ["figures", "pattern", "cost", "training", "stayed", "why", "certificate", "repeat", "tip"]
    assert result.report.agreement is not None
    assert f"{result.report.agreement.max_abs_diff:.2e}" in page.text
    assert "bpc prune --data a.csv" in page.text
    assert "accuracy 80.40% ± 0.63% 79.75% ± 0.64%" in page.text
    assert write_report(tmp_path, graph, masks, result, **wanted) != path  # type: ignore[arg-type]
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == text  # the same for the same


def test_every_head_says_what_became_of_it(
    graph: fx.GraphModule, masks: dict[str, Tensor], result: passes.ShrinkResult
) -> None:
    page = Page(report_html(graph, masks, result))
    heads = [text for text in page.cells if ", head " in text]
    assert len(heads) == 2 * HEADS
    query = masks["encoder.layer.0.attention.self.query.weight"].view(HEADS, DIM, 32).any(2).sum(1).tolist()
    for head, text in enumerate(heads[:HEADS]):
        assert text.startswith(f"layer 0, attention, head {head}: {'stays' if query[head] else 'gone'}")
        assert f"query {query[head]} and {query[head]} of {DIM};" in text
    dims = [re.search(r"layer (\d), FFN, .*: (\d+) of (\d+) kept, (\d+) in", text) for text in page.cells]
    counted = [[int(g) for g in m.groups()] for m in dims if m]
    up = masks["encoder.layer.0.intermediate.dense.weight"]
    assert sum(kept for layer, kept, _, _ in counted if layer == 0) == int(up.any(1).sum())
    assert sum(of for layer, _, of, _ in counted if layer == 0) == FFN
    assert sum(left for layer, _, _, left in counted if layer == 1) == FFN
    assert "6 of 8 heads and 29 of 48 FFN dims are left" in page.text


def test_what_users_wrote_is_text(graph: fx.GraphModule, masks: dict[str, Tensor]) -> None:
    evil = "</title><script>alert('x')</script> & \"co\""
    log = {evil: [{"step": 1, "loss": 1.0, f"eval_{evil}": 0.5}, {"step": 2, f"eval_{evil}": 0.6}]}
    text = report_html(graph, masks, history=log, title=evil, commands=[evil], figures=([evil], [[evil]]))
    assert "<script>alert" not in text
    assert Page(text).text.count("alert('x')") >= 6


def test_before_shrinking_sizes_are_estimates(graph: fx.GraphModule, masks: dict[str, Tensor]) -> None:
    page = Page(report_html(graph, masks))
    assert "was not compiled yet" in page.text
    assert "as estimated from the masks" in page.text
    assert "training" not in page.ids


def test_nothing_pruned_and_nothing_to_draw_are_said(graph: fx.GraphModule) -> None:
    whole = Page(report_html(graph, None, passes.shrink(graph)))
    assert "Nothing was pruned" in whole.text
    plain = passes.trace(nn.Linear(3, 3).eval(), torch.randn(2, 3))
    page = Page(report_html(plain, None, passes.shrink(plain)))
    assert "No attention and no feed-forward network was recognised" in page.text
    assert {"pattern", "cost"}.isdisjoint(page.ids)


@pytest.mark.parametrize("name", ["report.js", "report.css", "pattern.css", "pattern.html", "report.html"])
def test_templates_are_packaged(name: str) -> None:
    root = Path(__file__).parents[3]
    assert (root / "bpc/report/templates" / name).exists()
    assert '"bpc.report" = ["templates/*"]' in (root / "pyproject.toml").read_text(encoding="utf-8")


def test_arithmetic_adds_up() -> None:
    """A classifier's two linears are in no layer, and spend what the layers do not."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 8)).eval()
    graph = passes.trace(Residual(model), torch.randn(2, 8))
    page = Page(report_html(graph, None, passes.shrink(graph)))
    layer, head = 2 * 2 * 8 * 12, 2 * (8 * 6 + 6 * 3)
    assert f"layer 0 {layer} {layer} 1.00× elsewhere {head} {head} 1.00× all {layer + head} {layer + head}" in page.text


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.head = inner, nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x + self.inner(x))
