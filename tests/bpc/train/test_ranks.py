"""Two processes (gloo) with two micro-batches each compute one step of the whole batch."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from tests.bpc.train.launch import on_two_ranks
from tests.bpc.train.ranks import to_the_end
from tests.bpc.train.test_proportion import assert_same, classifier, expected, language_model, rows

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `ranks` leaves behind."""
    return on_two_ranks("tests.bpc.train.ranks", tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("make", [classifier, language_model])
def test_two_ranks_are_one_process(two_ranks: Path, make: type) -> None:
    wanted = expected(make, rows(make.__name__), make is language_model)
    for rank in "01":
        assert_same(torch.load(two_ranks / f"{make.__name__}-{rank}.pt"), wanted)


def test_ranks_agree_on_what_a_target_leaves(two_ranks: Path) -> None:
    first, second = (torch.load(two_ranks / f"target-{rank}.pt") for rank in "01")
    for what in ("scores", "masks"):
        assert first[what].keys() == second[what].keys()
        assert all(torch.equal(value, second[what][name]) for name, value in first[what].items())
    assert torch.equal(first["prices"], second["prices"])
    assert not all(mask.all() for mask in first["masks"].values())
    assert first["cost"] == second["cost"] <= float(first["prices"][0])


def test_a_signal_to_one_rank_stops_both_and_one_or_two_go_on(two_ranks: Path, tmp_path: Path) -> None:
    resumed, whole = to_the_end(two_ranks / "stopped", 4, resume=True), to_the_end(tmp_path / "whole", 4)
    assert resumed.state.global_step == whole.state.global_step == 6
    assert whole.program is not None
    assert resumed.program is not None
    found = {"one": resumed.program.module.state_dict()}
    for rank in "01":
        left = torch.load(two_ranks / f"stopped-{rank}.pt")
        assert (left["step"], left["signal"]) == (3, signal.SIGTERM)
        found[rank] = left["state"]
    for name, value in whole.program.module.state_dict().items():
        for who, state in found.items():
            torch.testing.assert_close(state[name], value, rtol=1e-3, atol=1e-4, msg=f"{name}, {who}")
