"""In-place writes: through views, through operators that hand back their input, into inputs and into buffers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

import passes
from passes.ir.info import TraceError

aten = torch.ops.aten


class Writes(nn.Module):
    def __init__(self, write: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.write = write

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        self.write(y)
        return y + 1


def through_views(y: torch.Tensor) -> None:
    y[:, 1:].t()[0].mul_(3)


WRITES: dict[str, Callable[[torch.Tensor], object]] = {
    "plain": lambda y: y.add_(1),
    "view": through_views,
    "eval dropout": lambda y: functional.dropout(y, 0.5, False).add_(1),
    "feature dropout": lambda y: torch.feature_dropout(y, 0.5, False).add_(1),
    "atleast": lambda y: torch.atleast_1d(y).mul_(3),
    "to": lambda y: y.to(y.dtype).add_(1),
    "type_as": lambda y: y.type_as(y).add_(1),
    "contiguous": lambda y: y.contiguous().add_(1),
    "contiguous copy": lambda y: y.t().contiguous().add_(1),
    "detach": lambda y: y.detach().add_(1),
    "expand_as": lambda y: y.expand_as(y).add_(1),
    "no grad": torch.no_grad()(lambda y: y.add_(1)),
    "out": lambda y: torch.add(y, 1, out=y),
    "index": lambda y: y.index_put_((torch.tensor([0]),), torch.zeros(1)),
}


@pytest.mark.parametrize("name", WRITES)
def test_writes_reach_whoever_shares_the_memory(name: str) -> None:
    model, x = Writes(WRITES[name]), torch.randn(5, 4)
    graph = passes.trace(model, torch.randn(3, 4))
    torch.testing.assert_close(graph(x), model(x), rtol=0, atol=0)
    assert not any(
        n.target._schema.is_mutable for n in graph.graph.nodes if isinstance(n.target, torch._ops.OpOverload)
    )


def test_a_written_alias_that_torch_does_not_know_is_refused() -> None:
    with pytest.raises(TraceError, match=r"writes in place into the result of aten\.einsum"):
        passes.trace(Writes(lambda y: torch.einsum("ij->ji", y).add_(1)), torch.randn(3, 4))


class State(nn.Module):
    def __init__(self, read: bool) -> None:
        super().__init__()
        self.read = read
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count.add_(1)
        return x + self.count if self.read else x + 1


def test_state_that_reaches_an_output_is_refused_and_other_state_is_left_alone() -> None:
    with pytest.raises(TraceError, match="reads and writes its buffer 'count'"):
        passes.trace(State(read=True), torch.randn(3, 4))
    model, x = State(read=False), torch.randn(3, 4)
    graph = passes.trace(model, x)
    torch.testing.assert_close(graph(x), x + 1)
    assert float(model.count) == 0


class MovesItsTable(nn.Module):
    """Assigns a buffer to itself, moved to where it is already; ``counts``: and adds to it on the way."""

    def __init__(self, counts: bool) -> None:
        super().__init__()
        self.counts, self.linear = counts, nn.Linear(4, 4)
        self.register_buffer("table", torch.randn(9, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        table = self.table.to(x.device)
        if self.counts:
            table += 1
        self.table = table
        return self.linear(x) + self.table[: x.shape[1]]


def test_a_buffer_that_is_assigned_to_itself_is_no_state() -> None:
    model, x = MovesItsTable(False).eval(), torch.randn(3, 5, 4)
    graph = passes.trace(model, x)
    torch.testing.assert_close(graph(x[:2, :3]), model(x[:2, :3]))
    with pytest.raises(passes.TraceError, match="reads and writes its buffer 'table'"):
        passes.trace(MovesItsTable(True).eval(), x)


class WritesInput(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mul_(2) + 1


def test_the_callers_tensors_are_never_written() -> None:
    x = torch.randn(3, 4)
    before = x.clone()
    graph = passes.trace(WritesInput(), x)
    torch.testing.assert_close(graph(x), 2 * before + 1)
    assert torch.equal(x, before)


class WritesOnePiece(nn.Module):
    """torch's functionalisation scatters the piece back, by an operator that looks at sizes as numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.up(x)
        y.select(-1, 0).mul_(3)
        y.unsqueeze(0).unbind(0)[0].add_(1)
        return self.down(y)


def test_undoing_writes_fixes_no_size() -> None:
    torch.manual_seed(0)
    model = WritesOnePiece().double().eval()
    with torch.no_grad():
        model.up.weight.zero_()  # the whole model becomes a constant, of the inputs' sizes
        graph = passes.trace(model, torch.randn(3, 5, 6).double())
        small = passes.shrink(graph).graph_module
        x = torch.randn(2, 7, 6).double()
        assert torch.equal(graph(x), model(x))
        assert torch.allclose(small(x), model(x), rtol=0, atol=1e-12)
