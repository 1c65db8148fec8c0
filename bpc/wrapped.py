"""The model to compile, out of what training frameworks put around it."""

from __future__ import annotations

from torch import nn
from torch.distributed.tensor import DTensor

from passes.ir.unwrap import unwrap


def plain_model(model: nn.Module) -> nn.Module:
    """The model inside DataParallel, DistributedDataParallel or torch.compile; else ``model``, the same object.

    Raises ValueError for a model with adapters of peft, whose weights are not yet the model's own, for one whose
    weights accelerate keeps elsewhere (offloaded), and for one that FSDP2 (``fully_shard``) has cut into pieces.
    """
    inner, _ = unwrap(model)
    refuse_adapters(inner)
    if any(hasattr(m, "_hf_hook") and any(p.is_meta for p in m.parameters(recurse=False)) for m in inner.modules()):
        raise ValueError(
            f"{type(inner).__name__} has weights that accelerate offloaded, to the disk or the CPU, and brings in "
            "as it runs. Load it whole (without device_map), or give its directory to `bpc oneshot --stream` or "
            "`bpc shrink --stream`, which hold one layer at a time"
        )
    if is_sharded(inner):
        raise ValueError(
            f"{type(inner).__name__} has sharded parameters (FSDP2, fully_shard), of which this process holds a part: "
            "compile the model before it is sharded, or save it and load it whole"
        )
    return inner


def refuse_adapters(model: nn.Module) -> None:
    """Raise ValueError for a model with adapters of peft, whose weights are not yet the model's own."""
    if has_adapters(model):
        raise ValueError(
            f"{type(model).__name__} has adapters of peft (LoRA and the like): what they learned is not in the model's "
            "own weights, which are what is pruned and saved. Merge them first: model = model.merge_and_unload()"
        )


def has_adapters(model: nn.Module) -> bool:
    """Whether peft has put layers of its own around some of a model's."""
    return any(type(module).__module__.partition(".")[0] == "peft" for module in model.modules())


def is_sharded(model: nn.Module) -> bool:
    """Whether FSDP2 or tensor parallelism put distributed tensors in the place of parameters."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())
