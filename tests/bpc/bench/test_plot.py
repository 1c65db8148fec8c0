"""Speed-up against arithmetic, drawn."""

from __future__ import annotations

import pytest

from bpc.bench.plot import speedup_figure
from bpc.results.comparison import Comparison, this_machine
from bpc.timing.alternate import Timing


def test_plot_holds_measured_and_published_points() -> None:
    times = [Timing(n, (t,) * 7) for n, t in (("dense", 0.4), ("small", 0.1))]
    c = Comparison(8, 64, "onnx", "float32", *times, 5_000, 1_000, None, "wall", this_machine(1))
    (axes,) = speedup_figure([c], {"19": (3.8, 2.4), "20": (3.0, 2.0)}, annotate=["19"]).axes
    assert [text.get_text() for text in axes.texts] == ["model 19"]
    assert all((axes.get_title(), axes.get_xlabel().endswith("(×)"), axes.get_ylabel().endswith("(×)")))
    points = [tuple(map(float, xy)) for group in axes.collections for xy in group.get_offsets()]
    assert (5.0, 4.0) in points
    assert (3.8, 2.4) in points
    with pytest.raises(ValueError, match="no comparison"):
        speedup_figure([])


def test_comparisons_of_one_kind_share_a_colour_and_others_do_not() -> None:
    def measured(small: str, dtype: str) -> Comparison:
        times = [Timing(n, (t,) * 7) for n, t in (("dense", 0.4), (small, 0.1))]
        return Comparison(8, 64, "onnx", dtype, *times, 5_000, 1_000, None, "wall", this_machine(1))

    (axes,) = speedup_figure(
        [measured("1", "float32"), measured("2", "float32"), measured("1, plain", "float32"), measured("1", "int8")]
    ).axes
    assert [len(group.get_offsets()) for group in axes.collections] == [2, 1, 1]
    assert [text.get_text() for text in axes.get_legend().get_texts()][:3] == [
        "ONNX Runtime, float32, batch 8 × 64 tokens",
        "ONNX Runtime, float32, batch 8 × 64 tokens, plain",
        "ONNX Runtime, int8, batch 8 × 64 tokens",
    ]
