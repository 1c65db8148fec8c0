"""Put masks in front of the parameters of a user's own module, without renaming anything.

`torch.nn.utils.parametrize` would rename `weight` to `parametrizations.weight.original` and so break checkpoints and
`save_pretrained`. Here the parameter stays where it is, in `module._parameters["weight"]`; only *reading* the attribute
`module.weight` goes through the mask, by a property on a subclass made for this module (the way parametrize injects its
property). `state_dict`, `named_parameters`, optimizers and `isinstance` see no difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from bpc.scores.sharded import average_gradients, check_shard

_MASKS = "_bpc_parameter_masks"


def _masked_property(name: str) -> property:
    def get(self: nn.Module) -> Tensor | None:
        parameter = self._parameters[name]
        if parameter is None:
            return None
        mask = getattr(self, _MASKS)[name]
        if isinstance(parameter, DTensor):  # in a forward, FSDP2 has put the whole tensor in its place
            check_shard(self, name, parameter)
            average_gradients(mask.scores)
            return parameter
        return mask(parameter)

    # No setter: nn.Module.__setattr__ stores parameters without asking the class.
    return property(get, doc=f"`{name}`, masked")


def _masked_class(original: type[nn.Module], names: Iterable[str]) -> type[nn.Module]:
    """A subclass whose parameters ``names`` are read through masks."""
    names = tuple(names)

    def reduce(self: nn.Module, protocol: object) -> tuple[Any, ...]:
        # By its ingredients: pickle finds classes by name, and that name is the original's.
        return _empty, (original, names), self.__dict__

    namespace: dict[str, object] = {name: _masked_property(name) for name in names}
    namespace |= {"__module__": original.__module__, "__reduce_ex__": reduce}
    return type(original.__name__, (original,), namespace)


def _empty(original: type[nn.Module], names: tuple[str, ...]) -> nn.Module:
    masked = _masked_class(original, names)
    return masked.__new__(masked)


def owner_of(model: nn.Module, parameter: str) -> tuple[nn.Module, str]:
    """The submodule that holds ``parameter`` (a name of `named_parameters`) and the attribute's name in it."""
    path, _, name = parameter.rpartition(".")
    try:
        owner = model.get_submodule(path)
        present = name in owner._parameters
    except AttributeError:
        present = False
    if not present:
        raise KeyError(f"{type(model).__name__} has no parameter {parameter!r}; compile the model these masks are for.")
    return owner, name


def attach_masks(model: nn.Module, masks: Mapping[str, nn.Module]) -> None:
    """Mask each named parameter of ``model`` in place; ``masks`` maps parameter names to modules ``Tensor -> Tensor``.

    A tied parameter is masked wherever it is read, whichever of its names is given.

    Raises ``KeyError`` for a name that ``model`` lacks and ``ValueError`` for a parameter that is masked already; the
    model is untouched in both cases.
    """
    by_owner: dict[int, tuple[nn.Module, dict[str, nn.Module]]] = {}
    tied: dict[int, list[str]] = {}
    for alias, value in model.named_parameters(remove_duplicate=False):
        tied.setdefault(id(value), []).append(alias)
    for parameter, mask in masks.items():
        owner, name = owner_of(model, parameter)
        for alias in tied[id(owner._parameters[name])]:
            owner, name = owner_of(model, alias)
            if is_masked(owner):
                raise ValueError(f"{parameter!r} is masked already; call detach() first.")
            by_owner.setdefault(id(owner), (owner, {}))[1][name] = mask
    for owner, own in by_owner.values():
        # In __dict__, not as submodules: the scores are registered once, at the root (MaskSet.attach).
        owner.__dict__[_MASKS] = dict(own)
        owner.__class__ = _masked_class(type(owner), own)


def is_masked(module: nn.Module) -> bool:
    """True if `attach_masks` put masks on ``module``'s own parameters."""
    return _MASKS in module.__dict__


def detach_masks(model: nn.Module) -> None:
    """Undo `attach_masks` on every submodule; the stored parameters keep their (unmasked) values."""
    for module in model.modules():
        if is_masked(module):
            module.__class__ = type(module).__bases__[0]
            del module.__dict__[_MASKS]
