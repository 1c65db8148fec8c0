"""Whether config, plans and weights belong together, before a single weight is allocated."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from passes.plan.data import PlanData

# A module keeps each of its weights under its name, however small; tied ones are stored once.
_NAMES_PER_TENSOR, _MORE_NAMES = 4, 1000
_ENTRIES_PER_ENTRY, _MORE_ENTRIES = 1000, 10**7  # of the model before it was cut


def check_sizes(
    architecture: Any,
    config: Any,
    stored: Mapping[str, tuple[int, ...]],
    plans: Sequence[PlanData] = (),
    resize: Callable[[nn.Module], object] = lambda skeleton: None,
) -> None:
    """Raises ValueError where the model that ``config`` makes does not have the sizes that are ``stored``.

    ``resize`` is given the model first; then ``plans`` cut it, one after the other. It is built on the meta device,
    where sizes cost nothing, and no further than weights are there for.
    """
    with _at_most(_NAMES_PER_TENSOR * len(stored) + _MORE_NAMES), torch.device("meta"):
        skeleton: nn.Module = architecture(config)
    entries = sum(t.numel() for t in (*skeleton.parameters(), *skeleton.buffers()))
    resize(skeleton)
    for name, tensor in skeleton.state_dict().items():
        shape = tuple(tensor.shape)
        for plan in plans:
            own = plan.aliases.get(name, name)
            cut = next((cut for cut in plan.cuts if cut.parameter == own), None)
            if cut is not None and cut.shape != shape:
                raise ValueError(f"{name} is {shape} by config.json; the plan was made for {cut.shape}")
            shape = plan.small_shape(own, shape)
        if stored.get(name, shape) != shape:
            raise ValueError(f"{name} is {stored[name]} in the file; config.json and the plan make {shape} of it")
    held = sum(map(math.prod, stored.values()))
    if entries > _ENTRIES_PER_ENTRY * held + _MORE_ENTRIES:
        raise ValueError(f"config.json makes a model of {entries:,} entries, and the file holds {held:,}")


@contextlib.contextmanager
def _at_most(count: int) -> Iterator[None]:
    """Raises ValueError inside as soon as more parameters than ``count`` are made."""
    made = 0

    def hook(module: nn.Module, name: str, parameter: Any) -> None:
        nonlocal made
        made += 1
        if made > count:
            raise ValueError(f"config.json makes more than {count} weights, many more than the file holds")

    handle = register_module_parameter_registration_hook(hook)
    try:
        yield
    finally:
        handle.remove()
