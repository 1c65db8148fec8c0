"""Rules one after the other, as torch's functions make operators: what they call constant is, what they call dead moves
nothing, and none of the operators is unknown. One operator at a time: test_operands.

``y = op(z)`` with z = x · scale + shift: where scale is 0, z is constant; where ``keep`` is 0, nobody reads y.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import fx, nn
from torch.nn import functional

import passes
from passes.analysis.constants import Constants
from passes.analysis.liveness import Liveness
from passes.ops.table import unknown_operators

aten = torch.ops.aten
Op = Callable[[torch.Tensor], torch.Tensor]
T, H, C = 4, 2, 6  # z is (batch, 4, 2, 6)


def _weight(*shape: int) -> torch.Tensor:
    """A matrix with many zeros, as masks leave it."""
    generator = torch.Generator().manual_seed(sum(shape))
    weight = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return weight * (torch.rand(*shape, generator=generator) < 0.4)


W_OUT, W_IN, SCALE, KERNEL, GROUPED = _weight(C, 5), _weight(5, C), _weight(C), _weight(3, T, 2), _weight(T, 2, 3)
DEPTHWISE, WIDER, W_SPLIT, W_JOIN = _weight(T, 1, 3), _weight(3 * T, 1, 3), _weight(C, 2, 3), _weight(5, H, C)
BIAS, ONE, FIRST, ROWS = _weight(3), torch.tensor(1.0).double(), torch.zeros(1, T, H, 2).long(), torch.tensor([3, 0])
LEVEL, POSITIONS = torch.linspace(0.1, 0.4, T).double(), torch.tensor([1, 0])
OPERATORS: dict[str, Op] = {
    "view": lambda z: z.flatten(2).unflatten(2, (3, 4)),
    "reshape_as": lambda z: z.flatten(2).reshape_as(z),
    "other names": lambda z: torch.concat([torch.multiply(z, 2), torch.subtract(z.swapdims(1, 1), z).clip(0)], 1),
    "view into data": lambda z: z.reshape(-1, H, C),
    "permute": lambda z: z.permute(3, 0, 2, 1),
    "transpose": lambda z: z.transpose(1, -1),
    "expand": lambda z: z.unsqueeze(2).expand(-1, -1, 3, -1, -1),
    "slice": lambda z: z[:, 1:3, :, 2:],
    "strided slice": lambda z: z[..., ::2],
    "select": lambda z: z[:, 2],
    "split": lambda z: torch.cat(z.split([1, 2, 3], -1)[::-1], -1),
    "chunk": lambda z: z.chunk(2, 1)[0] * z.chunk(2, 1)[1],
    "unbind": lambda z: z.unbind(2)[0] - z.unbind(2)[1],
    "stack": lambda z: torch.stack([z[..., :3], z[..., 3:]], 1),
    "cat along data": lambda z: torch.cat([z, z * 2], 0),
    "flip": lambda z: z.flip([1, 3]),
    "roll": lambda z: z.roll((1, 2), (1, 3)),
    "repeat": lambda z: z.repeat(1, 2, 1, 3),
    "repeat_interleave": lambda z: z.repeat_interleave(3, 2),
    "pad": lambda z: functional.pad(z, (1, 2, 0, 1)),
    "pad with a number": lambda z: functional.pad(z, (0, 0, 1, 0), value=2.0),
    "reflect": lambda z: functional.pad(z.flatten(1, 2), (1, 1), mode="reflect"),
    "pool": lambda z: functional.adaptive_avg_pool1d(z.flatten(1, 2), 2),
    "max pool": lambda z: functional.max_pool2d(z, 2),
    "upsample": lambda z: functional.interpolate(z, scale_factor=2.0, mode="bilinear"),
    "gelu": functional.gelu,
    "product": lambda z: z * z.flip(3),
    "where": lambda z: torch.where(z > 0, z, ONE),
    "masked_fill": lambda z: z.masked_fill(z < 0, 3.0),
    "linear": lambda z: z @ W_OUT,
    "linear with columns": lambda z: functional.linear(z, W_IN),
    "matmul": lambda z: z @ z.transpose(-1, -2),
    "attention": lambda z: z.softmax(-1) @ z.mT,
    "sdpa": lambda z: functional.scaled_dot_product_attention(z, z, z),
    "einsum": lambda z: torch.einsum("bthc,bthd->bcd", z[:, :, :1], z[:, :, 1:]),
    "einsum of heads": lambda z: torch.einsum("bqhc,bkhc->bhqk", z, z),
    "einsum into several dims": lambda z: torch.einsum("bthc,cde->bdthe", z, W_SPLIT),
    "einsum over several dims": lambda z: torch.einsum("bthc,dhc->btd", z, W_JOIN),
    "einsum with heads of a weight": lambda z: torch.einsum("bthc,shc->bths", z, W_JOIN),
    "einsum without a sum": lambda z: torch.einsum("bthc,hd->dbthc", z, W_JOIN[0, :, :2]),
    "outer": lambda z: z * torch.outer(SCALE[:H], SCALE),
    "masked_fill with a tensor": lambda z: z.masked_fill(z < 0, ONE),
    "einsum of one": lambda z: torch.einsum("bthc->chbt", z) * 2,
    "softmax": lambda z: z.softmax(-1),
    "layer_norm": lambda z: functional.layer_norm(z, (C,), SCALE, SCALE),
    "batch_norm": lambda z: functional.batch_norm(z, LEVEL, LEVEL + 1, SCALE[:T], LEVEL),
    "mean": lambda z: z.mean((1, 3)),
    "sum keeping": lambda z: z.sum(2, keepdim=True),
    "amax": lambda z: z.amax(-1),
    "max": lambda z: z.max(-1).values - z.min(dim=-1).values,
    "cumsum": lambda z: z.cumsum(1),
    "diff": lambda z: z.diff(dim=3),
    "conv": lambda z: functional.conv1d(z.flatten(2), KERNEL, BIAS, padding=1),
    "grouped conv": lambda z: functional.conv1d(z.flatten(2), GROUPED, groups=2),
    "depthwise conv": lambda z: functional.conv1d(z.flatten(2), DEPTHWISE, padding=1, groups=T),
    "conv with several outputs a group": lambda z: functional.conv1d(z.flatten(2), WIDER, padding="same", groups=T),
    "gather": lambda z: z.gather(3, FIRST.expand(z.shape[0], -1, -1, -1)),
    "index_select": lambda z: z.index_select(1, ROWS),
    "index": lambda z: z.transpose(0, 3)[ROWS],
    "index of two dims": lambda z: z.transpose(0, 3)[ROWS, :, POSITIONS],
    "scatter of zeros": lambda z: torch.zeros_like(z) + z * torch.ones_like(z),
    "norm": lambda z: torch.linalg.vector_norm(z, dim=-1),
}


class Probe(nn.Module):
    def __init__(self, op: Op) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.op = op
        self.scale = nn.Parameter((torch.rand(T, H, C, generator=generator) < 0.4).double())
        levels = torch.randint(0, 3, (T, H, C), generator=generator)  # 0 often: products with it are constant
        self.shift = nn.Parameter(torch.where(self.scale == 0, levels.double(), 0.3))
        result = op(torch.randn(5, T, H, C, dtype=torch.float64))
        keep = torch.rand(result.shape, generator=generator) < 0.4
        self.keep = nn.Parameter(keep[tuple(slice(0, 1) if s % 5 == 0 else slice(None) for s in keep.shape)].double())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.op(x * self.scale + self.shift) * self.keep


def value_next_to(graph: fx.Graph, target: object, parameter: str) -> tuple[fx.Node, fx.Node]:
    """(the node that applies ``parameter``, its other operand)."""
    for node in graph.nodes:
        operands = node.all_input_nodes
        if node.target is target and any(n.op == "get_attr" and n.target == parameter for n in operands):
            return node, next(n for n in operands if n.target != parameter)
    raise AssertionError(f"{parameter} is not read")


@pytest.mark.parametrize("name", OPERATORS)
def test_facts_agree_with_brute_force(name: str) -> None:
    op = OPERATORS[name]
    graph_module = passes.trace(Probe(op), torch.randn(5, T, H, C, dtype=torch.float64))
    assert not unknown_operators(graph_module.graph)
    constants = Constants(graph_module)
    liveness = Liveness(constants)
    z_node, _ = value_next_to(graph_module.graph, aten.add.Tensor, "shift")
    _, y_node = value_next_to(graph_module.graph, aten.mul.Tensor, "keep")
    module = Probe(op)
    fact, live = constants.fact(y_node), liveness.of(z_node)
    generator = torch.Generator().manual_seed(1)
    for batch in (5, 7):
        z = torch.randn(batch, T, H, C, generator=generator, dtype=torch.float64) * module.scale + module.shift
        y = op(z)
        const, value = fact.const.expand(y.shape), fact.value.expand(y.shape)
        torch.testing.assert_close(y[const], value[const].to(y.dtype), rtol=0, atol=1e-12)
        # Entries that are constant may be read: what was folded rests on their number. Others that are dead may not.
        movable = ~live & ~constants.fact(z_node).const
        noise = torch.randn(z.shape, generator=generator, dtype=torch.float64) * movable
        torch.testing.assert_close(op(z + noise) * module.keep, y * module.keep, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["view", "transpose", "slice", "split", "stack", "flip", "repeat_interleave", "gelu"])
def test_facts_are_sharp_where_entries_only_move(name: str) -> None:
    """Everything that holds still for random inputs is known to."""
    op = OPERATORS[name]
    module = Probe(op)
    graph_module = passes.trace(module, torch.randn(5, T, H, C, dtype=torch.float64))
    _, y_node = value_next_to(graph_module.graph, aten.mul.Tensor, "keep")
    y = op(torch.randn(9, T, H, C, dtype=torch.float64) * module.scale + module.shift)
    assert torch.equal(Constants(graph_module).fact(y_node).const[0], (y == y[:1]).all(0))
