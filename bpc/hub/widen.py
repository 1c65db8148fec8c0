"""Small models whose linear layers hold less than their forward sees, made plain."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from bpc.hub.note import note_of
from bpc.hub.sizes import note_sizes
from passes.ir.compact import compact_layers, expand

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def widen(module: AnyModule) -> AnyModule:
    """Give compact layers of a small model the width that its forward sees, in place: zeros where they held nothing.

    It computes what it did. For tools that read or write weights by their layers' sizes, such as peft, which merges an
    adapter into a weight of the width that passes through the layer. Returns ``module``; one without compact layers is
    left as it is.
    """
    layers = compact_layers(module)
    for layer in layers.values():
        expand(layer)
    if layers:
        note_sizes(module, before=note_of(getattr(module, "config", None)))
    return module
