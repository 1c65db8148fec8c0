"""Small models whose linear layers hold less than their forward sees, made plain."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from bpc.hub.note import note_of
from bpc.hub.sizes import note_sizes
from bpc.wrapped import has_adapters
from passes.ir.compact import compact_layers, expand

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def widen(module: AnyModule) -> AnyModule:
    """Give compact layers of a small model the width that its forward sees, in place: zeros where they held nothing.

    It computes what it did. For tools that read or write weights by their layers' sizes, such as peft, which merges an
    adapter into a weight of the width that passes through the layer. Returns ``module``; one without compact layers is
    left as it is. Raises ValueError for one with adapters of peft, under whose names its config could not tell the
    sizes, and for layers whose weight something computes (`torch.nn.utils.prune`).
    """
    layers = compact_layers(module)
    if layers and has_adapters(module):
        raise ValueError(
            f"{type(module).__name__} has adapters of peft: widen the model before it gets them. Adapters trained on "
            "its compact layers are kept by save_pretrained and fit the widened model (PeftModel.from_pretrained)"
        )
    for layer in layers.values():
        expand(layer)
    if layers:
        note_sizes(module, before=note_of(getattr(module, "config", None)))
    return module
