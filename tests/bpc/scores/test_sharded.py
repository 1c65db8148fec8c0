"""What masks say to parameters in pieces; what they compute with them: tests/bpc/train/test_sharded.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.tensor import Replicate, Shard

from bpc import ranks
from bpc.scores.sharded import average_gradients, check_shard


def piece(*placements: object) -> Any:
    return SimpleNamespace(placements=placements)


@pytest.mark.parametrize("placements", [(Shard(0),), (Replicate(), Shard(0))])
def test_fsdp_looks_at_its_shards(placements: Any) -> None:
    owner = nn.Linear(2, 2)
    owner._is_fsdp_managed_module = True  # as fully_shard says
    check_shard(owner, "weight", piece(*placements))


@pytest.mark.parametrize(
    ("managed", "placements"),
    [(False, (Shard(0),)), (True, (Shard(0), Shard(1))), (True, (Shard(0), Replicate())), (True, (Replicate(),))],
)
def test_a_part_that_a_forward_would_see_is_refused(managed: bool, placements: Any) -> None:
    owner = nn.Linear(2, 2)
    owner._is_fsdp_managed_module = managed
    with pytest.raises(RuntimeError, match=r"'weight' of a Linear is a part of a tensor.*tensor parallelism"):
        check_shard(owner, "weight", piece(*placements))


def test_gradients_are_averaged_once_a_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[torch.Tensor] = []
    monkeypatch.setattr(ranks, "average", lambda tensors: found.extend(t.clone() for t in tensors))
    scores = nn.Parameter(torch.ones(3))
    average_gradients(scores)
    average_gradients(scores)
    (scores * 2).sum().backward()
    (scores * 3).sum().backward()
    assert [gradient.tolist() for gradient in found] == [[2.0] * 3, [5.0] * 3]
