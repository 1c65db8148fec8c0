"""Brute force over one operator: every operand computed from the data, with parts of each constant, dead or masked.

``y = op(*operands)``; operand k is a linear of the input, viewed as the operand's shape, so a masked row makes an entry
one constant (0 where its bias is masked too). ``keep`` multiplies y, so a masked entry is read by nobody.
"""

from __future__ import annotations

import copy
import random
from math import prod
from typing import Any

import torch
from torch import fx, nn

from passes.analysis.constants import Constants
from passes.analysis.liveness import Liveness
from passes.ir.sizes import tensor_of
from tests.passes.ops.examples import B, Example, Operand, T

WIDTH = 5
SIZES = ((3, 4), (2, 5))
NUMBERS = torch.tensor([0.0, 0.5, 1.0, -1.0, 0.3], dtype=torch.float64)


def is_data(size: int) -> bool:
    return size in (B, T)


class Probe(nn.Module):
    """The operator between linears. ``computed``: which operands come from the data; the others are parameters."""

    def __init__(self, example: Example, computed: tuple[int, ...]) -> None:
        super().__init__()
        self.example, self.computed = example, computed
        generator = torch.Generator().manual_seed(0)
        for k, operand in enumerate(example.operands):
            channels = [s for s in operand.shape if not is_data(s)]
            if k in computed:
                layer = nn.Linear(WIDTH, prod(channels)).double()
                numbers = torch.randint(0, len(NUMBERS), (prod(channels),), generator=generator)
                layer.bias.data = NUMBERS[numbers]
                layer.weight.data = torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64)
                setattr(self, f"make{k}", layer)
            else:
                value = torch.randn([1 if is_data(s) else s for s in operand.shape], generator=generator).double()
                setattr(self, f"value{k}", nn.Parameter(value))
        with torch.no_grad():
            shapes = [self.result(torch.zeros(b, t, WIDTH, dtype=torch.float64)).shape for b, t in ((3, 4), (5, 7))]
        self.order = sorted(range(len(shapes[0])), key=lambda d: shapes[0][d] == shapes[1][d])
        self.data_dims = sum(a != b for a, b in zip(*shapes, strict=True))
        sizes = [a if a == b else 1 for a, b in zip(*shapes, strict=True)]
        self.keep = nn.Parameter(torch.randn(sizes, generator=generator, dtype=torch.float64).abs() + 0.5)
        self.out = nn.Linear(prod(sizes), 3).double()

    def operand(self, k: int, operand: Operand, x: torch.Tensor) -> torch.Tensor:
        batch, length = x.shape[:2]
        shape = [batch if s == B else length if s == T else s for s in operand.shape]
        if k not in self.computed:
            value = getattr(self, f"value{k}")
            value = value.expand(shape) if any(is_data(s) for s in operand.shape) else value
        else:
            if T not in operand.shape:
                x = x.mean(1)
            if B not in operand.shape:
                x = x.mean(0)
            value = getattr(self, f"make{k}")(x)  # (B, T, ·) in the order of the data dims; channels follow
            leading = [batch] * (B in operand.shape) + [length] * (T in operand.shape)
            channels = [s for s in operand.shape if not is_data(s)]
            value = value.view(leading + channels)
            dims = [d for d in (B, T) if d in operand.shape]
            place = [operand.shape.index(d) for d in dims]
            rest = iter(range(len(dims), len(shape)))
            value = value.permute([place.index(d) if d in place else next(rest) for d in range(len(shape))])
        if operand.below:
            return (value.sigmoid() * operand.below * 0.999).long()
        if operand.yes:
            return value > 0
        return value.abs() + 0.5 if operand.positive else value

    def result(self, x: torch.Tensor) -> torch.Tensor:
        operands = [self.operand(k, o, x) for k, o in enumerate(self.example.operands)]
        return self.example.call(*operands).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = (self.result(x) * self.keep).permute(self.order)
        return self.out(y.flatten(self.data_dims) if self.data_dims < y.dim() else y.unsqueeze(-1))


def masks(probe: Probe, seed: int, only: int | None = None) -> dict[str, torch.Tensor]:
    """Random masks: slices of an operand or of the result along one dim, or single entries. ``only``: this operand."""
    picks, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    found: dict[str, torch.Tensor] = {}
    for k, operand in enumerate(probe.example.operands):
        channels = [s for s in operand.shape if not is_data(s)]
        if k not in probe.computed or (only is not None and k != only):
            continue
        rows = _entries(channels, picks, generator).flatten()
        found[f"make{k}.weight"] = rows[:, None].expand(-1, WIDTH).clone()
        if picks.random() < 0.5:
            found[f"make{k}.bias"] = rows
    found["keep"] = _entries(list(probe.keep.shape), picks, generator).reshape(probe.keep.shape)
    return found


def _entries(shape: list[int], picks: random.Random, generator: torch.Generator) -> torch.Tensor:
    """True where something stays: whole slices along one dim go, or single entries, or nothing."""
    wide = [d for d, s in enumerate(shape) if s > 1]
    kept = torch.ones(shape, dtype=torch.bool)
    kind = picks.choice(("slices", "slices", "entries", "both", "none"))
    if kind in ("slices", "both") and wide:
        dim = picks.choice(wide)
        stays = torch.rand(shape[dim], generator=generator) < 0.6
        kept &= stays.view([-1 if d == dim else 1 for d in range(len(shape))])
    if kind in ("entries", "both"):
        kept &= torch.rand(shape, generator=generator) < 0.6
    return kept


def masked(probe: Probe, given: dict[str, torch.Tensor]) -> Probe:
    result = copy.deepcopy(probe)
    for name, mask in given.items():
        result.get_parameter(name).data *= mask
    return result


def example_input(seed: int, batch: int, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, WIDTH, dtype=torch.float64, generator=generator)


class Disturbed(fx.Interpreter):
    """Runs a graph, checks every constant fact, and moves everything that is neither live nor constant."""

    def __init__(self, graph_module: fx.GraphModule, constants: Constants, liveness: Liveness | None) -> None:
        super().__init__(graph_module)
        self.constants, self.liveness = constants, liveness
        self.generator = torch.Generator().manual_seed(0)
        self.wrong: list[str] = []

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op != "call_function" or tensor_of(n) is None:
            return value
        fact = self.constants.fact(n)
        const, number = fact.const.expand(value.shape), fact.value.expand(value.shape)
        if self.liveness is None:
            if not torch.allclose(value[const].double(), number[const].double(), rtol=1e-9, atol=1e-12):
                self.wrong.append(f"{n.name} ({n.target}) is not the constant it is said to be")
            return value
        movable = ~self.liveness.of(n).expand(value.shape) & ~const
        if value.dtype is torch.bool:
            return value ^ movable
        if not value.is_floating_point():
            return torch.where(movable, torch.zeros((), dtype=value.dtype), value)
        noise = torch.randn(value.shape, generator=self.generator, dtype=torch.float64)
        return torch.where(movable, noise.to(value.dtype), value)
