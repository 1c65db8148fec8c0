"""Graphs written by hand, node by node, with metadata: for tests of one rule, where a trace would take longer."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from passes.analysis.constants import Constants
from passes.analysis.coupling.solver import Coupling, couple
from passes.analysis.liveness import Liveness
from passes.ir.graph import set_attribute
from passes.ir.metadata import call
from passes.ops.facts import axis, fact_shape

aten = torch.ops.aten
_HINTS = {"b": 5, "t": 7, "s": 11}


class Sketch:
    """A graph in the making; sizes that are strings are data, one symbol for each of them."""

    def __init__(self) -> None:
        self.module = fx.GraphModule(nn.Module(), fx.Graph())
        self.graph = self.module.graph
        self._mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
        self._symbols: dict[str, Any] = {}

    def _size(self, size: int | str) -> Any:
        if isinstance(size, str) and size not in self._symbols:
            context = StatelessSymbolicContext(dynamic_sizes=[DimDynamic.DYNAMIC])
            probe = self._mode.from_tensor(torch.empty(_HINTS[size]), symbolic_context=context)
            self._symbols[size] = probe.shape[0]
        return self._symbols[size] if isinstance(size, str) else size

    def input(self, *shape: int | str, dtype: torch.dtype = torch.float64, name: str = "x") -> fx.Node:
        node = self.graph.placeholder(name)
        sizes = [self._size(s) for s in shape]
        with self._mode:
            node.meta["val"] = torch.empty(sizes, dtype=dtype)
        return node

    def weight(self, name: str, value: Any) -> fx.Node:
        """A parameter; lists become float64."""
        tensor = value if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=torch.float64)
        set_attribute(self.module, name, nn.Parameter(tensor, requires_grad=False))
        node = self.graph.get_attr(name)
        node.meta["val"] = self._mode.from_tensor(tensor, static_shapes=True)
        return node

    def call(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        return call(self.graph, target, *args, **kwargs)

    def fixed(self, x: fx.Node, numbers: Any, name: str = "fixed") -> fx.Node:
        """``x`` with the numbers where they are not NaN, along its last dims: x · 0 + number."""
        wanted = torch.tensor(numbers, dtype=torch.float64)
        scaled = self.call(aten.mul.Tensor, x, self.weight(f"{name}_scale", wanted.isnan().double()))
        return self.call(aten.add.Tensor, scaled, self.weight(f"{name}_shift", wanted.nan_to_num()))

    def free(self, *shape: int | str, name: str = "free") -> fx.Node:
        """A value whose channel dims nothing binds: an input of the data dims times a parameter of the channel dims."""
        x = self.input(*(s if isinstance(s, str) else 1 for s in shape), name=name)
        channels = [s if isinstance(s, int) else 1 for s in shape]
        return self.call(aten.mul.Tensor, x, self.weight(f"{name}_scale", torch.ones(channels).double()))

    def done(self, *outputs: fx.Node) -> fx.GraphModule:
        self.graph.output(outputs)
        self.graph.lint()
        self.module.recompile()
        return self.module

    def constants(self, *outputs: fx.Node, masks: Any = None) -> Constants:
        return _sound(Constants(self.done(*outputs), masks))

    def liveness(self, *outputs: fx.Node, masks: Any = None) -> Liveness:
        liveness = Liveness(self.constants(*outputs, masks=masks))
        _sound(liveness.constants)
        return liveness

    def coupling(self, lives: Mapping[fx.Node, Any], whole: str = "dims") -> Coupling:
        """The relations alone, solved above given live channels (bools along the last dims); no value is an output."""
        seeds = {n: torch.as_tensor(live).expand(fact_shape(n)) for n, live in lives.items()}
        constants = self.constants()
        coupling = couple(constants, SimpleNamespace(live=seeds), whole)  # type: ignore[arg-type]
        _sound(constants)
        return coupling


def _sound(constants: Constants) -> Constants:
    """A rule that fails gives way to the conservative default, which few tests would notice."""
    assert not constants.failures, constants.failures
    return constants


def tied(coupling: Coupling, *dims: tuple[fx.Node, int]) -> bool:
    """All these dims keep the same indices."""
    return len({coupling.class_of[found] for n, d in dims if (found := axis(n, d)) is not None}) == 1


def reason(coupling: Coupling, node: fx.Node, dim: int) -> str | None:
    """Why every index of a dim stays; None where nothing pins it."""
    found = axis(node, dim)
    assert found is not None
    return coupling.reason(found)


NAN = float("nan")


def reader(sketch: Sketch, value: fx.Node, keep: Any, name: str = "keep") -> fx.Node:
    """What reads only some entries of a value: a product with 1 and 0 along its last dims."""
    return sketch.call(aten.mul.Tensor, value, sketch.weight(name, keep))


def matrix(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """Dense float64 numbers, none of them 0."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, columns, generator=generator, dtype=torch.float64) + 0.5


def keeps(coupling: Coupling, node: fx.Node, dim: int) -> list[bool]:
    found = coupling.keep(node, dim)
    assert found is not None
    return [bool(k) for k in found.tolist()]
