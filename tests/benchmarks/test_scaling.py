"""docs/scaling.md says what `python -m benchmarks.scaling` makes of its results; its models and arithmetic hold."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from benchmarks.scaling.cases import CASES
from benchmarks.scaling.fit import Wanted, fit, least_squares
from benchmarks.scaling.models import LLAMA_7B, Shape
from benchmarks.scaling.plot import digest
from benchmarks.scaling.projection import GPUS, Counted, counted, memory, work
from benchmarks.scaling.tables import NOT_MEASURED, tables
from benchmarks.scaling.training import count_step
from tests.snippets import ROOT

SMALL = Shape("llama", 1, 64, 96, 4, 2, 50)


@pytest.fixture(scope="module")
def cases() -> dict[str, Any]:
    held: dict[str, Any] = json.loads((ROOT / "results" / "scaling.json").read_text(encoding="utf-8"))["cases"]
    return held


def test_the_tables_follow_from_the_results(cases: dict[str, Any]) -> None:
    assert cases.keys() == CASES.keys()
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    for name, table in tables(cases).items():
        assert table in page, name


def test_the_figure_follows_from_the_results(cases: dict[str, Any]) -> None:
    with Image.open(ROOT / "docs" / "figures" / "scaling.png") as picture:
        assert picture.info["Description"] == f"numbers {digest(cases)}"


def test_every_row_of_what_was_not_run_says_so(cases: dict[str, Any]) -> None:
    made = tables(cases)
    for name in ("compiling 7B and 70B", "memory of a GPU", "arithmetic of a token", "arithmetic of a step"):
        assert all(NOT_MEASURED in line for line in made[name].splitlines()[2:])


def test_models_are_tested_on_larger_cases_than_they_were_fitted_to(cases: dict[str, Any]) -> None:
    for kind, family in (("compile", "bert"), ("compile", "llama"), ("plan", "llama"), ("step", "bert")):
        sizes: dict[bool, list[int]] = {False: [], True: []}
        for key, row in cases.items():
            if key.startswith(f"{kind} {family} "):
                sizes[row["held out"]].append(row["in layers"])
        assert max(sizes[True]) > max(sizes[False])


def test_a_law_is_found_again_and_what_is_held_out_does_not_move_it() -> None:
    def row(layers: int, flops: int, seconds: float, held_out: bool = False) -> dict[str, Any]:
        stages = {"step": {"cpu s": seconds}}
        return {"layers": layers, "flops": flops, "parameters": 1, "held out": held_out, "stages": stages}

    sizes = [(2, 10**9), (4, 10**9), (2, 4 * 10**9), (8, 10**10)]
    rows = {f"step bert {i}": row(n, f, 0.5 + 0.25 * n + 1e-10 * f) for i, (n, f) in enumerate(sizes)}
    rows["step bert largest"] = row(16, 10**11, 2 * (0.5 + 4 + 10), held_out=True)
    model = fit(rows, Wanted("step", "bert", "step", "cpu s", ("1", "layer", "FLOP")))
    assert model.coefficients == pytest.approx({"1": 0.5, "layer": 0.25, "FLOP": 1e-10})
    assert model.worst < 1e-9
    assert model.held_out == {"step bert largest": pytest.approx(-0.5)}


def test_no_term_has_a_negative_coefficient() -> None:
    rows = [{"layers": n, "parameters": n * n} for n in (1, 2, 3, 4)]
    found = least_squares(rows, [10 + n - 0.1 * n * n for n in (1, 2, 3, 4)], ("1", "layer", "parameter"))
    assert all(value >= 0 for value in found.values())
    assert "parameter" not in found


def test_a_layer_more_costs_what_the_last_did() -> None:
    one, two, three = (count_step(replace(SMALL, layers=n), 1, 32) for n in (1, 2, 3))
    for name in one:
        assert three[name] - two[name] == two[name] - one[name] > 0


def test_products_are_counted_as_by_hand() -> None:
    tokens, width, keys = 32, 64, 2 * 16
    linear = width * (2 * width + 2 * keys + 3 * 96 + SMALL.vocabulary)
    by_hand = 3 * (2 * tokens * linear + 2 * 2 * tokens * tokens * width)
    assert count_step(SMALL, 1, tokens)["flops"] == by_hand


def test_no_scores_of_pairs_are_saved() -> None:
    assert count_step(SMALL, 4, 32)["saved bytes"] == pytest.approx(count_step(SMALL, 1, 128)["saved bytes"], rel=0.1)


@pytest.fixture
def seven(cases: dict[str, Any]) -> Counted:
    return counted(cases, LLAMA_7B)


def test_counted_layers_make_the_whole_model(seven: Counted) -> None:
    assert seven.weights == 6_738_415_616


@pytest.mark.parametrize("masters", [False, True])
def test_sharding_divides_what_is_trained_and_nothing_else(seven: Counted, masters: bool) -> None:
    whole = memory(seven, 1, False, True, masters)
    eight, more = (memory(seven, n, True, True, masters) for n in GPUS)
    assert whole.weights + whole.gradients + whole.adam == pytest.approx(seven.weights * (16 if masters else 8))
    for part in ("weights", "gradients", "adam"):
        assert getattr(whole, part) / getattr(eight, part) == pytest.approx(8)
        assert getattr(eight, part) / getattr(more, part) == pytest.approx(8)
    for part in ("scores", "gathered", "masked", "activations", "rest"):
        assert getattr(eight, part) == getattr(more, part)
    assert whole.scores == eight.scores


def test_without_checkpointing_masked_copies_of_all_layers_stay_whole_on_every_gpu(seven: Counted) -> None:
    kept, repeated = (memory(seven, 64, True, checkpointed, False) for checkpointed in (False, True))
    assert kept.masked == 32 * repeated.masked == 2 * seven.whole["masked"]
    assert repeated.activations < kept.activations


def test_more_gpus_share_the_arithmetic_and_more_texts_at_a_time_what_is_done_once_for_all(seven: Counted) -> None:
    few, many = (work(seven, n) for n in GPUS)
    assert few.products == pytest.approx(8 * many.products)
    assert few.masks == pytest.approx(8 * many.masks)
    fourfold = work(seven, 8, texts=4)
    assert fourfold.products == few.products
    for part in ("masks", "sent", "scores", "linked"):
        assert getattr(few, part) == pytest.approx(4 * getattr(fourfold, part))


def test_hours_are_those_of_the_link_where_it_takes_longer(seven: Counted) -> None:
    steps = 1e9 / 2**19 / 3600
    few, many = (work(seven, n) for n in GPUS)
    assert few.hours == pytest.approx(steps * (few.products + few.masks))
    assert many.hours == pytest.approx(steps * many.linked)
