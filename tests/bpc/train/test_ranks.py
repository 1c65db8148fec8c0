"""Two processes (gloo) with two micro-batches each compute one step of the whole batch."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.bpc.train.ranks import to_the_end
from tests.bpc.train.test_proportion import assert_same, classifier, expected, language_model, rows

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `ranks` leaves behind."""
    out = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "tests.bpc.train.ranks", str(out)]
    ranks = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **common, "PYTHONPATH": path, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in "01"
    ]
    try:
        for process in ranks:
            output, _ = process.communicate(timeout=120)
            assert process.returncode == 0, output
    finally:
        for process in ranks:
            process.kill()
    return out


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


def test_sharded_parameters_are_refused_by_name(two_ranks: Path) -> None:
    for rank in "01":
        asked, sharded, compiled = (two_ranks / f"refusals-{rank}.txt").read_text().splitlines()
        assert asked == sharded
        assert "FSDP shards parameters, and masks read whole ones" in sharded
        assert "has sharded parameters (FSDP2, fully_shard)" in compiled
