"""Training in pieces (FSDP2, ``fully_shard``): a copy for it to cut, the way back, and checkpoints of pieces.

A program's module has to stay whole to be compiled. So what is cut is a copy of it on every rank, which reads the same
masks, and what the copy has learned is put into the module in the end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, parse_flag_from_env
from torch import nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict
from torch.distributed.tensor import DTensor

from bpc.scores import MaskSet
from bpc.train import pieces
from bpc.wrapped import is_sharded
from passes.plan.copies import full_copy


def replica(module: nn.Module, masks: MaskSet | None = None) -> nn.Module:
    """A copy of ``module`` for ``fully_shard``: on the CPU, as the first rank has it; every rank calls this.

    Of a program, ``replica(program.module, program.mask_set)`` reads the program's own masks and scores, which
    ``fully_shard`` leaves whole.
    """
    shared = [] if masks is None else [masks, *masks.modules_by_parameter().values()]
    copied = full_copy(module, shared).cpu()
    if torch.distributed.is_initialized():
        device = PartialState().device
        for tensor in (*copied.parameters(), *copied.buffers()):
            held = tensor.detach().to(device)
            torch.distributed.broadcast(held, src=0)
            tensor.detach().copy_(held)
    return copied


@torch.no_grad()
def gather(module: nn.Module, sharded: nn.Module) -> None:
    """Put what the ranks hold of ``sharded``, a `replica` of ``module``, into ``module``; every rank calls this.

    Raises ValueError, and changes nothing, where the two have parameters of other names.
    """
    own = module.state_dict(keep_vars=True)
    held: dict[str, Any] = get_model_state_dict(sharded)
    if strange := sorted(own.keys() ^ held.keys()):
        raise ValueError(
            f"{type(sharded).__name__} is no replica of this {type(module).__name__}: only one of them has {strange[0]}"
        )
    for name, piece in held.items():
        if isinstance(piece, DTensor):
            piece = piece.to(piece.device_mesh.device_type).full_tensor()  # type: ignore[attr-defined]
        own[name].copy_(piece)


class ShardedTrainer(transformers.Trainer):
    """A `transformers.Trainer` that under FSDP2 trains a copy of the model it was given, which gets what it learned.

    Its checkpoints of pieces are safetensors, which any number of ranks goes on from, with FSDP2 or without.
    """

    _whole: nn.Module | None = None  # what was given, where a copy of it is trained

    def _masks(self) -> MaskSet | None:
        """Those of the model, which stay whole."""
        return None

    def create_accelerator_and_postprocess(self) -> None:
        """Also between CPUs, where accelerate has it not."""
        super().create_accelerator_and_postprocess()
        state = self.accelerator.state
        asked = self.args.fsdp or parse_flag_from_env("ACCELERATE_USE_FSDP")
        if asked and not self.is_fsdp_enabled and state.distributed_type == DistributedType.MULTI_CPU:
            plugin = FullyShardedDataParallelPlugin(**(self.args.fsdp_plugin_args or {}))
            if state.mixed_precision != "no":
                plugin.set_mixed_precision(state.mixed_precision)
            state.fsdp_plugin, state.distributed_type = plugin, DistributedType.FSDP
            self.is_fsdp_enabled = True

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        assert self.model is not None
        if not is_sharded(self.model):  # not after an earlier train(); in a search, every trial has another
            self._whole = self.model
        if self.is_fsdp_enabled and self._whole is not None:
            plugin: Any = self.accelerator.state.fsdp_plugin
            masks = self._masks()
            self.model = self.model_wrapped = replica(self._whole, masks)
            plugin.ignored_modules = None if masks is None else [masks.to(self.args.device)]
            if plugin.transformer_cls_names_to_wrap is None:
                plugin.transformer_cls_names_to_wrap = _layers(self.model)
        return super()._prepare_for_training(*args, **kwargs)

    def _gather(self) -> None:
        """After training."""
        if self.is_fsdp_enabled and self._whole is not None and self.model is not None:
            gather(self._whole, self.model)

    # ---- checkpoints -----------------------------------------------------------------------------------------------

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.args.should_save:
            pieces.remove(Path(output_dir))  # what a run before, on other ranks, left at the same step
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        self.accelerator.wait_for_everyone()
        assert self.model is not None
        pieces.save(Path(output_dir), self.model, self.optimizer)
        if self.args.should_save:
            assert self.lr_scheduler is not None
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir, pieces.SCHEDULER))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if pieces.are_in(resume_from_checkpoint):
            trained = self.model if model is None else model
            assert trained is not None
            pieces.load_weights(Path(resume_from_checkpoint), trained)
        elif self.is_fsdp_enabled:
            raise ValueError(
                f"{resume_from_checkpoint} was written without FSDP: go on from it without, on any number of ranks"
            )
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not pieces.are_in(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        assert self.model is not None
        pieces.load_optimizer(Path(checkpoint), self.model, self.optimizer)
        assert self.lr_scheduler is not None
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint, pieces.SCHEDULER), weights_only=True))

    def _load_best_model(self) -> None:
        best = self.state.best_model_checkpoint
        if best is None or not pieces.are_in(best):
            super()._load_best_model()
            return
        assert self.model is not None
        pieces.load_weights(Path(best), self.model)


def _layers(model: nn.Module) -> list[str]:
    """Names of the classes of repeated layers, which are gathered one at a time.

    What a model itself says (``_no_split_modules``) may hold embeddings, which accelerate cuts by themselves.
    """
    lists = [path for path, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    outer = [path for path in lists if not any(path.startswith(f"{other}.") for other in lists)]
    return sorted({type(layer).__name__ for path in outer for layer in model.get_submodule(path).children()})
