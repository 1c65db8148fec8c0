"""Heads in another basis: the same function, and numbers as computed by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import passes
from passes.ir.graph import get_attribute
from passes.rewrite.turn_heads import HeadFeatures, Turn, TurnHeads


class Attention(nn.Module):
    """Two heads of four dims; in float64, so that only rounding of 1e-16 is left."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (f(x).unflatten(-1, (2, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        return x + self.o(torch.softmax(q @ k.transpose(2, 3) / 2, -1).matmul(v).transpose(1, 2).flatten(2))


INDEX = torch.arange(8).view(2, 4)


def features(name: str, side: str = "out") -> HeadFeatures:
    return HeadFeatures(f"{name}.weight", INDEX, side, f"{name}.bias")  # type: ignore[arg-type]


def matrices(seed: int) -> torch.Tensor:
    return torch.randn(2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_matrices_that_cancel_change_nothing_but_the_numbers() -> None:
    model, x = Attention().double(), torch.randn(3, 5, 8, dtype=torch.float64)
    graph = passes.trace(model, (x,))
    values, keys = matrices(0), matrices(1)
    turns = [
        Turn(features("v"), values),
        Turn(features("o", "in"), torch.linalg.inv(values)),
        Turn(features("q"), keys),
        Turn(features("k"), torch.linalg.inv(keys).transpose(1, 2)),
    ]
    result = TurnHeads(turns).run(graph).graph_module
    assert torch.allclose(result(x), model(x), atol=1e-12)
    for name in ("q", "k", "v", "o"):
        assert not torch.allclose(get_attribute(result, f"{name}.weight"), get_attribute(graph, f"{name}.weight"))
    assert torch.equal(get_attribute(result, "o.bias"), get_attribute(graph, "o.bias"))
    head = model.v.weight[4:]
    assert torch.allclose(get_attribute(result, "v.weight")[4:], values[1] @ head)
    assert torch.allclose(get_attribute(result, "v.bias")[4:], values[1] @ model.v.bias[4:])


def test_weights_stored_the_other_way_and_several_turns_of_one() -> None:
    class Transposed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(8, 16, dtype=torch.float64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.addmm(torch.zeros(16, dtype=torch.float64), x, self.w)

    model, x = Transposed(), torch.randn(3, 8, dtype=torch.float64)
    graph = passes.trace(model, (x,))
    first, second = matrices(0), matrices(1)
    turns = [
        Turn(HeadFeatures("w", INDEX, "out", None, 1), first),
        Turn(HeadFeatures("w", INDEX + 8, "out", None, 1), second),
    ]
    got = TurnHeads(turns).run(graph).graph_module(x).unflatten(-1, (4, 4))
    whole = model(x).unflatten(-1, (4, 4))
    wanted = torch.einsum("hij,thj->thi", torch.cat([first, second]), whole)
    assert torch.allclose(got, wanted)


def test_what_does_not_fit_is_refused() -> None:
    graph = passes.trace(Attention(), (torch.randn(1, 3, 8),))
    with pytest.raises(ValueError, match=r"reads no parameter 'z\.weight'"):
        TurnHeads([Turn(features("z"), matrices(0))]).requires(graph)
    with pytest.raises(ValueError, match=r"matrices \(2, 3, 3\), not \(2, 4, 4\)"):
        TurnHeads([Turn(features("q"), torch.zeros(2, 3, 3))]).requires(graph)
