"""The manager: every exception names the pass and those before it; what this package says itself keeps its type."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import fx, nn

import passes
from passes.ir.graph import copy_graph
from passes.ir.info import TraceError, trace_info
from passes.ir.manager import Pass, PassError, PassManager, PassResult


@dataclass(frozen=True)
class Copies(Pass):
    name: str = "copies"

    def run(self, graph_module: fx.GraphModule) -> PassResult:
        return PassResult(copy_graph(graph_module), True)


@dataclass(frozen=True)
class Raises(Pass):
    error: Exception
    name: str = "raises"

    def run(self, graph_module: fx.GraphModule) -> PassResult:
        raise self.error


def graph() -> fx.GraphModule:
    return passes.trace(nn.Linear(4, 4), torch.randn(3, 4))


def test_foreign_exceptions_name_the_pass_and_those_before_it() -> None:
    with pytest.raises(
        PassError, match=r"pass raises failed \(after copies\): KeyError: 'x'\n  at test_manager.py:\d+"
    ):
        PassManager((Copies(), Raises(KeyError("x")))).run(graph())


def test_errors_of_our_own_keep_their_type() -> None:
    with pytest.raises(TraceError) as error:
        PassManager((Copies(), Raises(TraceError("no")))).run(graph())
    assert error.value.__notes__ == ["in pass raises (after copies)"]


def test_a_rewritten_graph_loses_its_reference_and_a_layer_of_width_zero_may_stay() -> None:
    before = graph()
    after = PassManager((Copies(),)).run(before).graph_module
    assert trace_info(before).reference is not None
    assert trace_info(after).reference is None
    empty = nn.Sequential(nn.Linear(4, 0), nn.Linear(0, 4))
    assert PassManager((Copies(),)).run(passes.trace(empty, torch.randn(3, 4)))
