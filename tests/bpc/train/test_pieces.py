"""Checkpoints in pieces, of one process; of two, and of another number than wrote them: test_sharded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from bpc.train import pieces

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


def trained(seed: int, steps: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model[0].bias.requires_grad_(False)
    own = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW([{"params": own[:1], "lr": 0.3}, {"params": own[1:], "lr": 0.1}])
    for _ in range(steps):
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def test_a_fresh_run_reads_what_another_wrote(tmp_path: Path) -> None:
    model, optimizer = trained(0, 3)
    assert not pieces.are_in(tmp_path)
    pieces.save(tmp_path, model, optimizer)
    assert pieces.are_in(tmp_path)
    again, its_optimizer = trained(1, 0)
    pieces.load_weights(tmp_path, again)
    pieces.load_optimizer(tmp_path, again, its_optimizer)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert [group["lr"] for group in its_optimizer.param_groups] == [0.3, 0.1]
    for one, other in zip(optimizer.param_groups, its_optimizer.param_groups, strict=True):
        for mine, theirs in zip(one["params"], other["params"], strict=True):
            for name, value in optimizer.state[mine].items():
                assert torch.equal(its_optimizer.state[theirs][name], value), name


def test_no_file_is_a_pickle(tmp_path: Path) -> None:
    pieces.save(tmp_path, *trained(0, 1))
    left = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert {Path(name).suffix for name in left} == {".safetensors", ".json"}
    assert json.loads((tmp_path / "optimizer" / "numbers.json").read_text())["param_groups.0.weight.lr"] == 0.3


def test_what_lay_there_before_goes(tmp_path: Path) -> None:
    pieces.save(tmp_path, *trained(0, 1))
    pieces.remove(tmp_path)
    assert not pieces.are_in(tmp_path)
    assert list(tmp_path.iterdir()) == []
