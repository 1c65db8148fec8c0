"""Two ranks (gloo) that train in pieces compute what one process computes that has everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import bpc
from bpc.train import gather
from bpc.train.checkpoints import newest_complete
from tests.bpc.train.launch import on_two_ranks
from tests.bpc.train.shards import CASES, MOVING, by_hand, state, trainer
from tests.bpc.train.test_proportion import classifier

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `tests.bpc.train.shards` leaves behind."""
    return on_two_ranks("tests.bpc.train.shards", tmp_path_factory.mktemp("shards"))


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    kept = torch.cat([mask.flatten() for mask in wanted["masks"].values()]).float().mean()
    assert 0.0 < kept < 1.0, "masks that have not moved show nothing"
    for name, mask in wanted["masks"].items():
        assert torch.equal(found["masks"][name], mask), name
    for name, value in wanted["state"].items():
        torch.testing.assert_close(found["state"][name], value, rtol=1e-3, atol=1e-5, msg=name)
    if "norms" in wanted:
        assert found["norms"] == pytest.approx(wanted["norms"], rel=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_are_one_process(shards: Path, tmp_path: Path, case: str) -> None:
    alone = trainer(case, tmp_path, 1)
    alone.train()
    for rank in "01":
        assert_same(torch.load(shards / f"{case}-{rank}.pt"), state(alone))


def test_what_was_trained_in_pieces_compiles(shards: Path) -> None:
    program = bpc.compile(classifier(0), MOVING)
    program.module.load_state_dict(torch.load(shards / "classifier-0.pt")["state"])
    report = program.shrink().report
    assert report.parameters_after < report.parameters_before


def test_a_checkpoint_in_pieces_goes_on_on_two_ranks_and_in_one_process(shards: Path, tmp_path: Path) -> None:
    whole = torch.load(shards / "stopped-0.pt")
    for rank in "01":
        assert_same(torch.load(shards / f"resumed-{rank}.pt"), whole)
    alone = trainer("classifier", tmp_path, 1)
    alone.train(resume_from_checkpoint=str(shards / "stopped" / "checkpoint-3"))
    assert_same(state(alone), whole)


def test_a_checkpoint_holds_no_weights_in_pickles(shards: Path) -> None:
    checkpoint = shards / "stopped" / "checkpoint-3"
    assert newest_complete(checkpoint.parent) == str(checkpoint.with_name("checkpoint-6"))
    left = {path.suffix for part in ("weights", "optimizer") for path in (checkpoint / part).iterdir()}
    assert left == {".safetensors", ".json"}


def test_an_incomplete_checkpoint_in_pieces_is_skipped(shards: Path, caplog: pytest.LogCaptureFixture) -> None:
    newest = shards / "stopped" / "checkpoint-6"
    lost = next((newest / "optimizer").glob("*.safetensors"))
    content = lost.read_bytes()
    lost.write_bytes(content[: len(content) // 2])
    try:
        assert newest_complete(newest.parent) == str(newest.with_name("checkpoint-3"))
    finally:
        lost.write_bytes(content)
    assert f"optimizer/{lost.name} is damaged" in caplog.text


def test_ranks_agree_in_half_precision_with_activation_checkpoints(shards: Path) -> None:
    first, second, full = (torch.load(shards / f"{name}.pt") for name in ("half-0", "half-1", "classifier-0"))
    for what in ("state", "masks"):
        assert first[what].keys() == full[what].keys()
        assert all(torch.equal(value, second[what][name]) for name, value in first[what].items())
    weight = "bert.encoder.layer.0.output.dense.weight"
    assert not torch.equal(first["state"][weight], full["state"][weight])
    torch.testing.assert_close(first["state"][weight], full["state"][weight], rtol=0.1, atol=1e-2)


def test_a_loop_of_ones_own_over_a_replica_or_the_module_itself(shards: Path) -> None:
    program = bpc.compile(classifier(0), MOVING)
    by_hand(program.module, program, shard=False)
    wanted = {"state": program.module.state_dict(), "masks": program.masks()}
    for name in ("hand-0", "hand-1", "rescued-0", "rescued-1"):
        assert_same(torch.load(shards / f"{name}.pt"), wanted)


def test_what_masks_do_not_survive_is_refused(shards: Path) -> None:
    for rank in "01":
        compiling, cut, compiled, tensor_parallel, loading = (shards / f"refusals-{rank}.txt").read_text().splitlines()
        assert "are cut into pieces already (fully_shard)" in cut
        assert "has sharded parameters (FSDP2, fully_shard)" in compiled
        assert "cut bpc.train.replica(program.module, program.mask_set) in its place" in compiling
        assert "with tensor parallelism a program cannot be trained" in tensor_parallel
        assert "fsdp_cpu_ram_efficient_loading" in loading


def test_only_a_replica_is_gathered() -> None:
    program = bpc.compile(classifier(0), MOVING)
    with pytest.raises(ValueError, match=r"is no replica of this.*only one of them has block_masks"):
        gather(classifier(0), program.module)
