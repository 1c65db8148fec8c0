"""Running modules: inputs to run on, outputs, what rounding costs, and which channels a product reads as constants."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

_PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default)
_MASK = "attention_mask"  # as transformers calls it: 1 is shown


class Unusable(RuntimeError):
    """Nothing can be judged; the message says why."""


class Inputs(NamedTuple):
    """Arguments of a module, and their sizes in words."""

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


def inputs_like(
    example: tuple[tuple[Any, ...], Mapping[str, Any]], shapes: Sequence[str], whole: bool, seed: int
) -> Iterator[Inputs]:
    """The example, then random inputs of its own sizes and of all of ``shapes`` that fit ("3x8, 3x8").

    Of rows that see no key nothing is promised: masks hide the last position of some rows and no more, and the
    example's are shown whole where ``whole`` says that it has such rows, or if they hide the first position.
    """
    paths, spec = pytree.tree_flatten_with_path((tuple(example[0]), dict(example[1])))
    slots = {i: _MASK in str(path[-1]) for i, (path, leaf) in enumerate(paths) if isinstance(leaf, Tensor)}
    leaves = [leaf for _, leaf in paths]
    own = [tuple(leaves[i].shape) for i in slots]
    recorded = [[tuple(map(int, re.findall(r"\d+", part))) for part in text.split(", ")] for text in shapes]
    fits = [sizes for sizes in recorded if [len(s) for s in sizes] == [len(s) for s in own] and sizes != own]
    generator = torch.Generator().manual_seed(seed)
    for number, sizes in enumerate([own, own, *fits]):
        filled = list(leaves)
        for (slot, masks), size in zip(slots.items(), sizes, strict=True):
            if number:
                filled[slot] = _random(leaves[slot], size, masks, generator)
            elif masks and (whole or not bool(leaves[slot][..., 0].all())):
                filled[slot] = torch.ones_like(leaves[slot])
        shown = ", ".join("x".join(map(str, size)) for size in sizes)
        yield Inputs(shown if number else f"the example {shown}", *pytree.tree_unflatten(filled, spec))


def _random(example: Tensor, shape: tuple[int, ...], masks: bool, generator: torch.Generator) -> Tensor:
    if masks:
        lengths = torch.randint(max(1, shape[-1] - 1), shape[-1] + 1, (*shape[:-1], 1), generator=generator)
        return (torch.arange(shape[-1]) < lengths).to(example.dtype)
    if not example.is_floating_point():
        low, high = min(0, int(example.min())), int(example.max())
        return torch.randint(low, high + 1, shape, generator=generator).to(example.dtype)
    noise = torch.randn(shape, generator=generator) * example.double().std(correction=0)
    return (noise + example.double().mean()).to(example.dtype)


def outputs_of(
    module: nn.Module, inputs: Inputs, dtype: torch.dtype | None = None, fault: type[Exception] = Unusable
) -> list[Tensor]:
    """Floating output tensors; floating inputs are cast to ``dtype``. Random draws are the same every time.

    Raises ``fault`` for whatever the forward raises, and for outputs that are not finite.
    """
    leaves, spec = pytree.tree_flatten((inputs.args, dict(inputs.kwargs)))
    cast = [leaf.to(dtype) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf for leaf in leaves]
    args, kwargs = pytree.tree_unflatten(cast, spec)
    name, given = type(module).__name__, f"{inputs.name} in {dtype or 'its own precision'}"
    try:
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(0)
            outputs = pytree.tree_leaves(module(*args, **kwargs))
    except Exception as error:  # the forward is the user's: anything can come out of it
        raise fault(f"{name} fails on {given}: {type(error).__name__}: {error}") from error
    found = [leaf.clone() for leaf in outputs if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    if not all(bool(torch.isfinite(output).all()) for output in found):
        raise fault(f"what {name} makes of {given} is not finite")
    return found


def floors(exact: Sequence[list[Tensor]], rough: Sequence[list[Tensor]]) -> list[tuple[Tensor, ...]]:
    """What rounding costs: per inputs and output, the largest |rough − exact| of each channel (entry of the last dim).

    At least what it costs all channels and inputs together in proportion to their size: luck is no measure.
    """
    found = []
    for fine, coarse in zip(zip(*exact, strict=True), zip(*rough, strict=True), strict=True):
        errors = [_largest(c.double() - f) for f, c in zip(fine, coarse, strict=True)]
        sizes = [_largest(f) for f in fine]
        typical = torch.cat(errors).norm() / torch.cat(sizes).norm().clamp_min(1e-300)
        typical.clamp_(torch.finfo(coarse[0].dtype).eps, 1.0)
        found.append([torch.maximum(error, size * typical) for error, size in zip(errors, sizes, strict=True)])
    return list(zip(*found, strict=True))


def distance(exact: Tensor, other: Tensor, floor: Tensor) -> float:
    """The largest |other − exact|, in units of the floor; infinite for NaN."""
    difference = _largest(other.double() - exact)
    return max(torch.where(difference == 0, 0.0, difference / floor).nan_to_num(torch.inf).tolist(), default=0.0)


def _largest(value: Tensor) -> Tensor:
    flat = value.abs().reshape(-1, value.shape[-1] if value.dim() else 1)  # (…, channels)
    return flat.amax(0) if len(flat) else flat.new_zeros(flat.shape[1])


class Watch(TorchDispatchMode):
    """While active: the range of the channels that enter each product with a weight. Weights go by their memory.

    ``seen``: {name: (lowest, highest), each (in features,)}; a weight that no matrix product reads is missing.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._names = {tensor.untyped_storage().data_ptr(): name for name, tensor in weights.items()}
        self.seen: dict[str, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _PRODUCTS:
            left, right = args[-2:]
            name = self._names.get(right.untyped_storage().data_ptr())
            if name is not None and left.numel():
                rows = left.reshape(-1, left.shape[-1]).double()
                low, high = self.seen.get(name, (rows[0], rows[0]))
                self.seen[name] = torch.minimum(low, rows.amin(0)), torch.maximum(high, rows.amax(0))
        return func(*args, **(kwargs or {}))
