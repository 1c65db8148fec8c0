"""Guards hold wherever a graph goes: copies, rewrites, pickles, compiled graphs, exported programs."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

import passes
from passes.frontend.enforce import only_of_sizes
from passes.frontend.trace import exported_program
from passes.ir.graph import copy_graph
from passes.ir.info import Guard, InputError, trace_info
from tests.passes.frontend.test_guards import Branches

X = torch.randn(4, 5, 6)


@pytest.fixture(scope="module")
def graph() -> torch.fx.GraphModule:
    return passes.trace(Branches(), {"x": X, "negate": False})


def test_guards_survive_rewrites_and_copies(graph: torch.fx.GraphModule) -> None:
    small = passes.shrink(graph, verify=False).graph_module
    for kept in (small, copy_graph(graph), copy.deepcopy(graph)):
        assert kept(X, False).shape == (4, 5, 3)
        with pytest.raises(InputError, match="8 or less"):
            kept(torch.randn(4, 9, 6), False)


def test_pickled_graphs_keep_them(graph: torch.fx.GraphModule) -> None:
    kept = pickle.loads(pickle.dumps(graph))
    torch.testing.assert_close(kept(X, False), graph(X, False))
    for x, message in ((torch.randn(4, 9, 6), "8 or less"), (torch.randn(3, 5, 6), "% 2")):
        with pytest.raises(InputError, match=message):
            kept(x, False)


def test_compiled_graphs_keep_them(graph: torch.fx.GraphModule) -> None:
    compiled = torch.compile(graph, backend="eager", fullgraph=True, dynamic=True)
    torch.testing.assert_close(compiled(X, False), graph(X, False))
    with pytest.raises(Exception, match="exception"):
        compiled(torch.randn(4, 9, 6), False)


def test_exported_programs_have_torchs_own(graph: torch.fx.GraphModule) -> None:
    module = exported_program(graph).module()
    torch.testing.assert_close(module(x=X, negate=False), graph(X, False))
    for x in (torch.randn(4, 9, 6), torch.randn(3, 5, 6)):
        with pytest.raises(AssertionError, match="Guard failed"):
            module(x=x, negate=False)


def test_what_a_file_brings_is_arithmetic_on_sizes(graph: torch.fx.GraphModule) -> None:
    guards = trace_info(graph).guards
    assert len(guards) > 3
    assert all(only_of_sizes(guard) for guard in guards)
    for code in ("__import__('os')", "{0}.__class__", "{0}.data", "getattr({0}, '__class__')", "(lambda: 1)()", "x ="):
        assert not only_of_sizes(Guard(code, "", "1"))
        assert not only_of_sizes(Guard("{0}.size(0) > 1", "", code))
