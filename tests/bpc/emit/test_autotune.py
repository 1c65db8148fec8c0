from __future__ import annotations

import json
from pathlib import Path

import onnx_ir as ir
import pytest
from torch import fx

from bpc.emit import autotune
from bpc.emit.onnx import TUNING_KEY, export_onnx, read_recipe
from bpc.emit.recipe import CHOICES, Recipe


def test_the_fastest_form_of_each_part_wins_by_a_margin(exported: ir.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(recipe: Recipe) -> float:
        return 1.0 - 0.3 * (recipe.attention == "packed") - 0.01 * (recipe.rows == "flat")

    def measured(model: ir.Model, variants: list[Recipe], *_: object) -> list[float]:
        return [seconds(v) / seconds(variants[0]) for v in variants]

    monkeypatch.setattr(autotune, "_relative_times", measured)
    tuning = autotune.tune(exported, Recipe(), threads=1)
    assert tuning.recipe == Recipe(attention="packed")  # 1 % of the flat rows is within the noise
    assert len(tuning.trials) == sum(len(choices) for choices in CHOICES.values())


@pytest.mark.slow
def test_tuned_export_records_what_it_measured(tiny_graph: fx.GraphModule, tmp_path: Path) -> None:
    written = export_onnx(tiny_graph, tmp_path / "m.onnx", autotune=True, tuning_shapes=[(1, 4)])
    assert read_recipe(written.path) == written.recipe
    record = json.loads(ir.load(written.path).metadata_props[TUNING_KEY])
    assert record["shapes"] == [[1, 4]]
    assert all(trial["relative_time"] > 0 for trial in record["trials"])


def test_tuning_is_for_the_cpu(tiny_graph: fx.GraphModule, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give a recipe"):
        export_onnx(tiny_graph, tmp_path / "m.onnx", target="cuda", autotune=True)
