"""Arithmetic of a graph: the limit of any speed-up.

Counted by torch's FLOP counter while the graph runs on shapes only (no numbers, no time): linear layers, attention
(both products) and convolutions; 2 FLOPs per multiply-add. Pointwise work is not counted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import fx
from torch._subclasses import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from bpc.emit.axes import DynamicAxes, resized_inputs
from passes.ir.info import trace_info


def count_flops(graph: fx.GraphModule, axes: DynamicAxes, sizes: Mapping[str, int]) -> int:
    """FLOPs of one forward pass with the dynamic axes at ``sizes`` (e.g. ``{"batch": 8, "sequence": 128}``)."""
    info = trace_info(graph)
    leaves, spec = pytree.tree_flatten((info.args, info.kwargs))
    fresh = iter(resized_inputs(graph, axes, sizes))
    # The math backend writes attention as two products, which the counter knows; the CPU's fused kernel it does not.
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        leaves = [fake.from_tensor(next(fresh)) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        args, kwargs = pytree.tree_unflatten(leaves, spec)
        with FlopCounterMode(display=False) as counter:
            graph(*args, **kwargs)
    return counter.get_total_flops()


@dataclass(frozen=True)
class FlopModel:
    """FLOPs = batch · (row + token · length + pair · length²): heads on pooled rows, linear layers, attention."""

    row: int
    token: int
    pair: int

    def __call__(self, batch: int, length: int) -> int:
        """FLOPs of one forward pass."""
        return batch * (self.row + self.token * length + self.pair * length * length)

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> FlopModel:
        """The model `to_json` wrote."""
        return cls(**json.loads(text))


def flop_model(graph: fx.GraphModule, axes: DynamicAxes) -> FlopModel | None:
    """The polynomial of ``graph``, or None where its FLOPs do not follow one (windowed attention, other axes)."""
    if "batch" not in axes.example:
        return None
    if "sequence" not in axes.example:
        return FlopModel(count_flops(graph, axes, {"batch": 2}) // 2, 0, 0)
    try:
        one, two, three = (count_flops(graph, axes, {"batch": 2, "sequence": n}) // 2 for n in (3, 4, 5))
    except (RuntimeError, IndexError):
        return None  # the model does not take such lengths
    pair = (three - 2 * two + one) // 2
    token = two - one - pair * 7
    found = FlopModel(one - token * 3 - pair * 9, token, pair)
    example = {name: axes.example[name] for name in ("batch", "sequence")}
    return found if found(*example.values()) == count_flops(graph, axes, example) else None
