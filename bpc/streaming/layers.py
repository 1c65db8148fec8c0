"""Sampled layers of a masked and a small model side by side, on random inputs: one layer in memory at a time.

What is compared is the module's own forward, with the head counts that were found for it: a plan that fits the shapes
and computes something else is found out here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from bpc.hub.sizes import tensors_of
from bpc.streaming.meta import shapes_of
from bpc.verify.check import MULTIPLE
from bpc.verify.runs import distance, floors
from passes.verify.errors import VerificationError

_PER_LIST = 3  # the first, one in the middle, the last
Call = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Layers:
    """``compared``: paths of the layers. ``worst``: the largest difference, in units of what rounding costs the masked
    layer; ``allowed`` is the limit. ``others``: {layer: why it was not compared}.
    """

    compared: tuple[str, ...]
    worst: float
    others: Mapping[str, str]
    allowed: float = MULTIPLE

    def __str__(self) -> str:
        if not self.compared:
            return "no layer was compared: " + ("; ".join(self.others.values()) or "the model has no list of layers")
        return (
            f"{len(self.compared)} layers compared on random inputs ({', '.join(self.compared)}): at most "
            f"{self.worst:.2g} times what rounding costs the masked ones ({self.allowed:g} times allowed)"
        )


def compare_layers(
    shell: nn.Module,
    small: nn.Module,
    large_numbers: Mapping[str, Tensor],
    small_numbers: Mapping[str, Tensor],
    inputs: Call,
    *,
    first: bool = False,
    known: Layers | None = None,
    seed: int = 0,
) -> Layers:
    """Run sampled layers of two models on the meta device with numbers in them.

    ``inputs``: what the models take, on the meta device; what they hand to their layers shows which inputs a layer
    takes. ``first``: the first layer of every list alone. ``known``: an earlier comparison of the same models,
    whose layers are not run again. Raises `VerificationError` for a layer that differs by more
    than rounding explains.
    """
    paths = list(_sampled(shell, 1 if first else _PER_LIST))
    calls, small_calls = _calls(shell, paths, inputs), _calls(small, paths, inputs)
    compared, others, worst = [], {}, 0.0 if known is None else known.worst
    for path in paths:
        if known is not None and path in known.compared:
            compared.append(path)
            continue
        if path not in calls or path not in small_calls:
            others[path] = f"{path} is not run on the example"
            continue
        if _shapes(calls[path]) != _shapes(small_calls[path]):
            others[path] = f"{path} takes other inputs in the small model"
            continue
        call = _random(calls[path], seed)
        far = _apart(path, shell, small, large_numbers, small_numbers, call)
        if far is None:
            others[path] = f"{path} gives outputs of other shapes in the small model"
            continue
        worst = max(worst, far)
        compared.append(path)
    return Layers(tuple(compared), worst, others)


def _apart(
    path: str, shell: nn.Module, small: nn.Module, large: Mapping[str, Tensor], little: Mapping[str, Tensor], call: Call
) -> float | None:
    """How far apart one layer is, in units of the floor; None where no output of theirs has one shape."""
    own = shell.get_submodule(path)
    numbers = _numbers(own, path, large)
    rough = _outputs(own, numbers, call)
    halves = any(t.dtype in (torch.bfloat16, torch.float16) for t in numbers.values())
    wide = torch.float32 if halves else torch.float64  # twice the memory, not four times
    for name in numbers:
        numbers[name] = _cast(numbers[name], wide)
    fine = [t.double() for t in _outputs(own, numbers, pytree.tree_map(lambda t: _cast(t, wide), call))]
    numbers.clear()
    made = _outputs(small.get_submodule(path), _numbers(small.get_submodule(path), path, little), call)
    pairs = [
        (exact, other, allowed)
        for exact, other, allowed in zip(fine, made, floors([fine], [rough])[0], strict=True)
        if exact.shape == other.shape  # a layer may also give what its attention alone is about, head by head
    ]
    if not pairs:
        return None
    far = max(distance(*pair) for pair in pairs)
    if not far <= MULTIPLE:
        raise VerificationError(
            f"{path} of the small model is {far:.3g} times as far from the masked one as rounding brings that one "
            f"({MULTIPLE:g} times allowed), on random inputs"
        )
    return far


def outermost_lists(model: nn.Module) -> Iterator[tuple[str, nn.ModuleList]]:
    """Lists of layers that are in no other layer, by their paths."""
    taken: list[str] = []
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) and not any(path.startswith(f"{t}.") for t in taken):
            taken.append(path)
            yield path, module


def _sampled(model: nn.Module, count: int) -> Iterator[str]:
    for path, module in outermost_lists(model):
        last = len(module) - 1
        picked = sorted({0, last // 2, last})[:count]
        yield from (f"{path}.{index}" for index in picked if any(True for _ in module[index].parameters()))


def _calls(model: nn.Module, paths: list[str], inputs: Call) -> dict[str, Call]:
    """What each module is called with, the first time."""
    found: dict[str, Call] = {}

    def note(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            found.setdefault(path, (args, dict(kwargs)))

        return hook

    hooks = [model.get_submodule(path).register_forward_pre_hook(note(path), with_kwargs=True) for path in paths]
    try:
        shapes_of(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _shapes(call: Call) -> list[Any]:
    return [t.shape if isinstance(t, Tensor) else None for t in pytree.tree_leaves(call)]


def _random(call: Call, seed: int) -> Call:
    """Numbers for meta tensors: floats are drawn, integers are 0, truth values true (masks that show everything)."""
    generator = torch.Generator().manual_seed(seed)

    def draw(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if not leaf.is_floating_point():
            return torch.full(leaf.shape, leaf.dtype is torch.bool, dtype=leaf.dtype)
        return torch.randn(leaf.shape, generator=generator).to(leaf.dtype)

    drawn: Call = pytree.tree_map(draw, call)
    return drawn


def _numbers(module: nn.Module, path: str, source: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: source[f"{path}.{name}"] for name in tensors_of(module)}


def _outputs(module: nn.Module, numbers: dict[str, Tensor], call: Call) -> list[Tensor]:
    with torch.no_grad():
        outputs = functional_call(module, numbers, call[0], call[1])
    return [t for t in pytree.tree_leaves(outputs) if isinstance(t, Tensor) and t.is_floating_point()]


def _cast(leaf: Any, dtype: torch.dtype) -> Any:
    return leaf.to(dtype) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf
