"""Ways to train that block masks do not survive, and masked models that nobody prunes: refused by name."""

from __future__ import annotations

from typing import Any

from torch import nn

from bpc.scores.attach import is_masked
from bpc.wrapped import is_sharded


def refuse_masks_without_program(model: nn.Module | None) -> None:
    """Raise ValueError for a masked model that is trained as a plain one: nothing would move its threshold."""
    if model is not None and any(is_masked(module) for module in model.modules()):
        raise ValueError(
            f"{type(model).__name__} has block masks, which only move with their program: give the Trainer program= "
            "(what bpc.compile returned) in place of model=; program.detach() makes it a plain model again"
        )


_SHARDED = "FSDP shards parameters, and masks read whole ones"


def refuse_sharded(model: nn.Module) -> None:
    """Raise ValueError for a masked model whose parameters ``fully_shard`` has cut into pieces."""
    if is_sharded(model):
        raise ValueError(_how_else(_SHARDED))


def refuse_wrappers(trainer: Any) -> None:
    """Raise ValueError where a trainer would put other tensors or copies in the place of masked parameters."""
    if trainer.args.fsdp or trainer.is_fsdp_enabled:
        raise ValueError(_how_else(_SHARDED))
    if trainer.is_deepspeed_enabled:
        raise ValueError(_how_else("DeepSpeed steps its optimizer inside each backward"))
    if trainer.args.n_gpu > 1:
        raise ValueError(_how_else("nn.DataParallel copies modules, whose masks stay behind"))


def _how_else(reason: str) -> str:
    return (
        f"{reason}: a program cannot be trained like that. Use DistributedDataParallel (torchrun --nproc-per-node=N "
        "script.py), or one GPU (CUDA_VISIBLE_DEVICES=0)"
    )
