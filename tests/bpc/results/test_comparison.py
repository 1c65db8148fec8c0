"""Figures of a comparison."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from rich.console import Console

from bpc.results.comparison import Comparison, Machine, comparison_table, fastest_lines, this_machine
from bpc.timing.alternate import Timing


def comparison(dense: float, small: float) -> Comparison:
    times = [Timing(n, (t,) * 7) for n, t in (("dense", dense), ("small", small))]
    return Comparison(8, 64, "onnx", "float32", *times, 4_000_000_000, 1_000_000_000, 100.0, "wall", this_machine(2))


def test_figures_of_a_comparison() -> None:
    c = comparison(0.4, 0.125)
    assert (c.speedup, c.arithmetic_ratio, c.efficiency) == (pytest.approx(3.2), 4.0, pytest.approx(0.8))
    assert (c.dense_gflops, c.small_gflops) == (pytest.approx(10), pytest.approx(8))
    assert json.loads(c.to_json())["efficiency"] == pytest.approx(0.8)
    assert Comparison.from_dict(json.loads(c.to_json())) == c
    console = Console(width=400, record=True)
    console.print(comparison_table([c]))
    text = " ".join(console.export_text().split())  # the caption may be folded
    for figure in ("8 × 64", "3.20×", "4.00×", "0.80", "100 GFLOP/s", "2 threads"):
        assert figure in text


def test_a_disturbed_measurement_shows_its_spread_and_its_best_run() -> None:
    c = comparison(0.4, 0.1)
    noisy = replace(c, small=Timing("small", (0.1, 0.1, 0.1, 0.1, 0.3, 0.3, 0.05)), peak_gflops=None)
    assert noisy.best_speedup == pytest.approx(8.0)
    assert noisy.small.spread == pytest.approx(2.0)
    console = Console(width=400, record=True)
    console.print(noisy)
    text = console.export_text()
    assert "4.00× ±200%" in text
    assert "matrix product" not in text


def test_a_machine_names_its_gpu_in_place_of_its_cpu() -> None:
    machine = Machine("Some CPU", 2, {"torch": "2"})
    assert str(machine) == "Some CPU, 2 threads; torch 2"
    assert str(replace(machine, gpu="Some GPU")) == "Some GPU; torch 2"
    assert {"python", "torch"} <= this_machine(2).versions.keys()


def test_the_fastest_runtime_is_named_for_each_shape() -> None:
    plain = comparison(0.4, 0.2)
    other = replace(comparison(0.3, 0.1), runtime="openvino", dtype="bfloat16")
    alone = replace(comparison(0.3, 0.1), batch=1)
    assert fastest_lines([plain, other, alone]) == ["small, 8 × 64: openvino bfloat16 is 2.00× as fast as onnx float32"]
    assert fastest_lines([plain]) == []
