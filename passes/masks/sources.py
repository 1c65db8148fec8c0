"""One argument, many kinds of masks: what `passes.shrink` and `passes.plan_shrink` take as ``masks``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import torch
from torch import fx

from passes.masks.block_scores import BlockScores, from_run_directory, has_scores
from passes.masks.check import CheckedMasks, MaskError, check_masks, parameter_shapes
from passes.masks.files import TensorFile

MaskSource: TypeAlias = Mapping[str, torch.Tensor] | BlockScores | str | Path | None


def resolve_masks(graph_module: fx.GraphModule, source: MaskSource) -> CheckedMasks:
    """Checked masks under the names the graph uses; those of files, and of block scores, are made when asked for.

    ``source``: {parameter name: bool tensor}; a file of them (safetensors, or torch.save); `BlockScores`; a checkpoint
    with block scores and nn_pruning's ``sparse_args.json`` beside it; None, which leaves the zeros in the weights to
    speak for themselves. Masks put on a model by torch.nn.utils.prune or a parametrization need no argument: they are
    part of the traced graph. Raises `MaskError`.
    """
    if source is None:
        return check_masks(graph_module, {})
    if isinstance(source, BlockScores):
        return check_masks(graph_module, source.masks(parameter_shapes(graph_module)))
    if isinstance(source, str | Path):
        return check_masks(graph_module, _from_file(source, parameter_shapes(graph_module)))
    return check_masks(graph_module, source)


def _from_file(path: str | Path, shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, torch.Tensor]:
    tensors = TensorFile(path)
    if has_scores(tensors):
        scores = from_run_directory(path)
        if scores is None:
            raise MaskError(
                f"{path} holds block scores; say how to read them: passes.masks.BlockScores(path, threshold=…)"
            )
        return scores.masks(shapes)
    wrong = next((name for name in tensors if tensors[name].dtype is not torch.bool), None)
    if wrong is not None:
        raise MaskError(
            f"{path}: {wrong!r} is {tensors[wrong].dtype}, but a mask file holds bool tensors. For the zeros in a "
            "checkpoint, load it into the model and pass masks=None"
        )
    return tensors
