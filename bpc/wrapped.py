"""The model to compile, out of what training frameworks put around it."""

from __future__ import annotations

from torch import nn
from torch.distributed.tensor import DTensor

from passes.ir.unwrap import unwrap


def plain_model(model: nn.Module) -> nn.Module:
    """The model inside DataParallel, DistributedDataParallel or torch.compile; else ``model``, the same object.

    Raises ValueError for a model with adapters of peft, whose weights are not yet the model's own, and for one that
    FSDP2 (``fully_shard``) has cut into pieces.
    """
    inner, _ = unwrap(model)
    if any(type(module).__module__.partition(".")[0] == "peft" for module in inner.modules()):
        raise ValueError(
            f"{type(inner).__name__} has adapters of peft (LoRA and the like): what they learned is not in the weights "
            "that would be pruned. Merge them first: model = model.merge_and_unload()"
        )
    if is_sharded(inner):
        raise ValueError(
            f"{type(inner).__name__} has sharded parameters (FSDP2, fully_shard), of which this process holds a part: "
            "compile the model before it is sharded, or save it and load it whole"
        )
    return inner


def is_sharded(model: nn.Module) -> bool:
    """Whether FSDP2 or tensor parallelism put distributed tensors in the place of parameters."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())
