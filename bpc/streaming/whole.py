"""Two models whole, the masked and the small one, on the same inputs: weights are read when the module runs that uses
them, those of one layer at a time, and let go of at its end.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bpc.hub.sizes import tensors_of
from bpc.streaming.layers import outermost_lists
from bpc.verify.check import MULTIPLE
from bpc.verify.runs import Inputs, Unusable, distance, floors, inputs_like, outputs_of
from passes.verify.errors import VerificationError


@dataclass(frozen=True)
class Whole:
    """``worst``: the largest difference of an output, in units of what rounding costs the masked model; None where the
    models were not run, for ``reason``. ``on``: sizes of the inputs.
    """

    worst: float | None
    on: str
    reason: str = ""
    allowed: float = MULTIPLE

    def __str__(self) -> str:
        if self.worst is None:
            return f"the whole models were not run: {self.reason}"
        return (
            f"both models were run whole, on random inputs {self.on}: at most {self.worst:.2g} times what rounding "
            f"costs the masked one ({self.allowed:g} times allowed)"
        )


def compare_whole(
    shell: nn.Module,
    small: nn.Module,
    large_numbers: Mapping[str, Tensor],
    small_numbers: Mapping[str, Tensor],
    example: tuple[tuple[Any, ...], Mapping[str, Any]],
    *,
    seed: int = 0,
) -> Whole:
    """Run two models on the meta device with numbers in them, the masked one also in a wider precision.

    Raises `VerificationError` for outputs that differ by more than rounding explains.
    """
    _, inputs = list(inputs_like(example, (), whole=False, seed=seed))  # the example's own numbers, and others
    halves = any(t.dtype in (torch.bfloat16, torch.float16) for t in tensors_of(shell).values())
    wide = torch.float32 if halves else torch.float64
    try:
        fine = [t.double() for t in _run(shell, large_numbers, inputs, wide)]
        rough = _run(shell, large_numbers, inputs, None)
    except Unusable as error:
        return Whole(None, inputs.name, str(error))
    try:
        got = _run(small, small_numbers, inputs, None)
    except Unusable as error:
        raise VerificationError(f"the small model: {error}") from error
    if [t.shape for t in fine] != [t.shape for t in got]:
        raise VerificationError("the small model's outputs have other shapes than the masked one's")
    worst = max(map(distance, fine, got, floors([fine], [rough])[0]), default=0.0)
    if not worst <= MULTIPLE:
        raise VerificationError(
            f"the small model is {worst:.3g} times as far from the masked one as rounding brings that one "
            f"({MULTIPLE:g} times allowed), run whole on random inputs {inputs.name}"
        )
    return Whole(worst, inputs.name)


def _run(model: nn.Module, numbers: Mapping[str, Tensor], inputs: Inputs, dtype: torch.dtype | None) -> list[Tensor]:
    """Outputs of a model on the meta device, with ``numbers`` in ``dtype`` (None: their own). Raises `Unusable`."""
    model = copy.deepcopy(model).eval()
    for path, module, names in _units(model):
        module.register_forward_pre_hook(_filling(path, names, numbers, dtype), with_kwargs=True)
        module.register_forward_hook(_emptying({name: _held(module, name) for name in names}), always_call=True)
    return outputs_of(model, inputs, dtype)


def _units(model: nn.Module) -> Iterator[tuple[str, nn.Module, list[str]]]:
    """(path, module, names of tensors) that are read together: layers whole, of other modules what they hold alone."""
    layers = {f"{path}.{index}" for path, module in outermost_lists(model) for index in range(len(module))}
    inside = tuple(f"{path}." for path in layers)
    for path, module in model.named_modules():
        own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        names = list(tensors_of(module)) if path in layers else [name for name, _ in own]
        if names and not path.startswith(inside):
            yield path, module, names


def _filling(path: str, names: list[str], numbers: Mapping[str, Tensor], dtype: torch.dtype | None) -> Any:
    def fill(module: nn.Module, args: Any, kwargs: Any) -> None:
        for name in names:
            value = numbers[f"{path}.{name}" if path else name]
            if dtype is not None and value.is_floating_point():
                value = value.to(dtype)
            _hold(module, name, value)

    return fill


def _emptying(before: Mapping[str, Any]) -> Any:
    def empty(module: nn.Module, args: Any, outputs: Any) -> None:
        for name, value in before.items():
            _hold(module, name, value)

    return empty


def _held(module: nn.Module, name: str) -> Any:
    path, _, own = name.rpartition(".")
    return getattr(module.get_submodule(path), own)


def _hold(module: nn.Module, name: str, value: Tensor) -> None:
    path, _, own = name.rpartition(".")
    owner = module.get_submodule(path)
    is_parameter = isinstance(getattr(owner, own), nn.Parameter)
    setattr(owner, own, nn.Parameter(value, requires_grad=False) if is_parameter else value)
