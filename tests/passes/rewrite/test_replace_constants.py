"""replace-constants: it fires (golden text), refuses, is idempotent, and preserves numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from passes.frontend.trace import trace
from passes.rewrite.replace_constants import ReplaceConstants
from tests.passes.golden_text import printed


class Residual(nn.Module):
    """x + down(relu(up(x))), where up is 0 and its bias (1, -1)."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(2, 2), nn.Linear(2, 2)
        with torch.no_grad():
            self.up.weight.zero_()
            self.up.bias.copy_(torch.tensor([1.0, -1.0]))
            self.down.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
            self.down.bias.copy_(torch.tensor([10.0, 20.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.up(x)))


def test_a_sublayer_that_is_constant_no_longer_runs(golden: Callable[[str, str], None]) -> None:
    result = ReplaceConstants().run(trace(Residual(), torch.randn(3, 2)))
    assert result.modified
    golden("replace_constants", printed(result.graph_module))


class Infinite(nn.Module):
    """log(0), log(1): numbers of which one must not be frozen into the model."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(2, 2)
        with torch.no_grad():
            self.up.weight.zero_()
            self.up.bias.copy_(torch.tensor([0.0, 1.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.up(x).log()


class Sizes(nn.Module):
    """Integers made of the input's size are positions, not channels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (torch.zeros(x.shape[0], dtype=torch.long) + 1).unsqueeze(-1)


def test_integers_and_living_values_stay() -> None:
    for model in (Sizes(), nn.Linear(2, 2)):
        assert not ReplaceConstants().run(trace(model, torch.randn(3, 2))).modified


class Rounded(Residual):
    """The integers that a constant is rounded to: the constant goes, the rounding stays."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.up(x).long()


class ReadTwice(Residual):
    """The inner constant is read by a constant and by what the input makes different."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = torch.relu(self.up(x))
        return x * self.down(inner) + inner


@pytest.mark.parametrize(("kind", "replaced", "casts"), [(Rounded, 1, 1), (ReadTwice, 2, 0)])
def test_what_a_living_value_reads_is_replaced_where_it_is_no_integer(
    kind: type[nn.Module], replaced: int, casts: int
) -> None:
    model, x = kind(), torch.randn(3, 2)
    result = ReplaceConstants().run(trace(model, x))
    targets = [n.target for n in result.graph_module.graph.nodes]
    assert len(result.facts["constants"]) == replaced
    assert torch.ops.aten.linear.default not in targets
    assert sum("to" in str(t) for t in targets if isinstance(t, torch._ops.OpOverload)) == casts
    torch.testing.assert_close(result.graph_module(x), model(x))


def test_infinite_constants_are_refused() -> None:
    result = ReplaceConstants().run(trace(Infinite(), torch.randn(3, 2)))
    targets = {n.target for n in result.graph_module.graph.nodes}
    assert torch.ops.aten.log.default in targets


def test_replacing_again_changes_nothing() -> None:
    once = ReplaceConstants().run(trace(Residual(), torch.randn(3, 2)))
    assert not ReplaceConstants().run(once.graph_module).modified


def test_a_constant_takes_a_free_name() -> None:
    model = Residual()
    model.register_buffer("constant_0", torch.tensor([7.0, 7.0]))
    forward = model.forward
    model.forward = lambda x: forward(x) * model.constant_0
    x = torch.randn(3, 2)
    graph = ReplaceConstants().run(trace(model, x)).graph_module
    assert {"constant_0", "constant_0_"} <= dict(graph.named_buffers()).keys()
    torch.testing.assert_close(graph(x), model(x))


@pytest.mark.parametrize("batch", [1, 5])
def test_it_preserves_numbers(batch: int) -> None:
    model, x = Residual(), torch.randn(batch, 2)
    graph = ReplaceConstants().run(trace(model, torch.randn(3, 2))).graph_module
    torch.testing.assert_close(graph(x), model(x))
    assert not [n for n in graph.graph.nodes if n.target is torch.ops.aten.linear.default]
