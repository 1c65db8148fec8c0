"""Masks from the block scores of a fine-pruned checkpoint.

    S [rows / block rows, columns / block columns]  ->  m(S), each entry repeated over its block

Reads state dicts in the manner of nn_pruning: next to a linear's ``weight`` lie one or two tensors ``mask_scores``,
held by the linear itself or by context modules in a list (``mask_module.context_modules.0.mask_scores`` and the like).
One 2-D tensor is a grid of blocks. 1-D tensors score rows (position 0 in the list) or columns (position 1); where both
are there, a block's score is their product. Shared context modules appear under every linear that uses them.
Binarizers: paper section 3; "sigmoid" is what the published checkpoints were trained with.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from pydantic import BaseModel, Field, TypeAdapter

from passes.masks.binarize import expand_blocks, keep_highest
from passes.masks.check import MaskError, hint
from passes.masks.files import TensorFile
from passes.strict import as_schema, parse_json

SCORES = "mask_scores"
AMPERE = "ampere_module"  # holds the scores of 2:4 patterns, which remove no dims
Method = Literal["sigmoid", "threshold", "topk"]


@dataclass(frozen=True)
class BlockScores:
    """Scores and how to turn them into masks.

    Args:
        source: a file or directory (see `TensorFile`), or tensors by name. Tensors other than scores are ignored.
        threshold: τ of 1(σ(S) > τ) or 1(S > τ); for "topk" the kept fraction. Usually the run's *final* threshold.
        method: "sigmoid", "threshold" or "topk".
        min_keep: at least about this fraction of a weight's blocks stays, the highest scores first, where a threshold
            would prune more (the public implementation keeps half a percent; 0 switches it off).
        bias: also mask the bias of rows that lost all their blocks.
    """

    source: str | Path | Mapping[str, torch.Tensor]
    threshold: float
    method: Method = "sigmoid"
    min_keep: float = 0.005
    bias: bool = True

    def masks(self, shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, torch.Tensor]:
        """{parameter name: bool mask}, each of the parameter's size only while it is asked for.

        ``shapes``: {parameter name: shape} of the model. Raises `MaskError`.
        """
        if self.method not in get_args(Method):
            raise MaskError(f"method {self.method!r}: choose one of {', '.join(get_args(Method))}")
        if not math.isfinite(self.threshold):
            raise MaskError(f"threshold {self.threshold}: give a finite number")
        tensors = self.source if isinstance(self.source, Mapping) else TensorFile(self.source)
        kept: dict[str, torch.Tensor] = {}
        biases: dict[str, str] = {}
        for weight, scores in _by_weight(tensors, shapes).items():
            kept[weight] = self._binarize(_block_grid(weight, shapes[weight], scores))
            bias = weight.removesuffix("weight") + "bias"
            if self.bias and bias in shapes:
                biases[bias] = weight
        if not kept:
            raise MaskError(f"no tensor is named {SCORES}: these are no block scores")
        return BlockMasks(kept, biases, shapes)

    def _binarize(self, scores: torch.Tensor) -> torch.Tensor:
        if self.method == "topk":
            return keep_highest(scores, int(self.threshold * scores.numel()))
        kept = (scores.sigmoid() if self.method == "sigmoid" else scores) > self.threshold
        least = int(self.min_keep * scores.numel()) + 1
        if self.min_keep > 0 and int(kept.sum()) < least:
            cut = scores.flatten().kthvalue(max(scores.numel() - least, 1)).values
            kept = scores > cut
        return kept


class BlockMasks(Mapping[str, torch.Tensor]):
    """Masks as the blocks that stay: ``kept``, {weight: grid}; ``biases``, {bias: the weight whose rows it follows}."""

    def __init__(
        self, kept: Mapping[str, torch.Tensor], biases: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
    ) -> None:
        self._kept, self._biases, self._shapes = kept, biases, shapes

    def __getitem__(self, name: str) -> torch.Tensor:
        if (weight := self._biases.get(name)) is not None:
            return self._kept[weight].any(1).repeat_interleave(self._block(weight)[0])
        return expand_blocks(self._kept[name], self._block(name))

    def _block(self, weight: str) -> tuple[int, int]:
        (rows, columns), grid = self._shapes[weight], self._kept[weight].shape
        return rows // grid[0], columns // grid[1]

    def __contains__(self, name: object) -> bool:
        return name in self._kept or name in self._biases

    def __iter__(self) -> Iterator[str]:
        yield from (*self._kept, *self._biases)

    def __len__(self) -> int:
        return len(self._kept) + len(self._biases)


def has_scores(names: Mapping[str, object]) -> bool:
    return any(name.rpartition(".")[2] == SCORES for name in names)


def from_run_directory(source: str | Path) -> BlockScores | None:
    """The options that nn_pruning writes beside a checkpoint (``sparse_args.json``); None where there are none."""
    folder = Path(source) if Path(source).is_dir() else Path(source).parent
    file = folder / "sparse_args.json"
    if not file.exists():
        return None
    try:
        options = as_schema(_OPTIONS, parse_json(file.read_bytes()))
    except (ValueError, OSError) as error:
        raise MaskError(f"{file} is damaged: {error}; pass passes.masks.BlockScores") from error
    methods = {part.split(":")[0] for part in (options.attention_pruning_method, options.dense_pruning_method)}
    methods.discard("disabled")
    known: dict[str, Method] = {"sigmoied_threshold": "sigmoid", "threshold": "threshold", "topK": "topk"}
    if len(methods) != 1 or next(iter(methods)) not in known or options.final_threshold is None:
        raise MaskError(f"{file}: cannot tell one binarizer from it ({sorted(methods)}); pass passes.masks.BlockScores")
    return BlockScores(
        source,
        threshold=options.final_threshold,
        method=known[next(iter(methods))],
        min_keep=options.linear_min_parameters,
        bias=options.bias_mask,
    )


class _Options(BaseModel):
    """What is read of nn_pruning's ``sparse_args.json``."""

    attention_pruning_method: str = "disabled"
    dense_pruning_method: str = "disabled"
    final_threshold: float | None = None
    linear_min_parameters: float = Field(default=0.005, ge=0, le=1)
    bias_mask: bool = False


_OPTIONS = TypeAdapter(_Options)


def _by_weight(
    tensors: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, dict[int, torch.Tensor]]:
    """{weight: {position in its list of context modules: scores}}."""
    found: dict[str, dict[int, torch.Tensor]] = {}
    for name in tensors:
        *path, leaf = name.split(".")
        if leaf != SCORES:
            continue
        owners = (".".join(path[:n]) for n in range(len(path), 0, -1))
        owner = next((o for o in owners if f"{o}.weight" in shapes), None)
        if owner is None:
            raise MaskError(f"{name!r}: the traced model has no weight these scores lie beside{hint(name, shapes)}")
        weight = f"{owner}.weight"
        inner = path[owner.count(".") + 1 :]
        if not tensors[name].is_floating_point():
            raise MaskError(f"{name!r} is {tensors[name].dtype}; scores are real numbers")
        scores = tensors[name].detach().float()
        if bool(torch.isnan(scores).any()):
            raise MaskError(f"{name!r} holds NaN scores: the run that wrote them diverged")
        position = next((int(part) for part in reversed(inner) if part.isdigit()), 0)
        if AMPERE in inner or position in found.get(weight, {}):
            raise MaskError(f"{name!r}: {weight!r} has a 2:4 pattern or several scores in one place; they are not read")
        found.setdefault(weight, {})[position] = scores
    return found


def _block_grid(weight: str, shape: tuple[int, ...], scores: Mapping[int, torch.Tensor]) -> torch.Tensor:
    """One score per block. Raises `MaskError` for scores that do not divide the weight."""
    if len(shape) != 2:
        raise MaskError(f"{weight!r} has shape {shape}; block scores mask matrices only")
    kinds = {t.dim() for t in scores.values()}
    if kinds == {2} and len(scores) == 1:
        grid = next(iter(scores.values()))
    elif kinds == {1} and set(scores) <= {0, 1}:
        rows, columns = (scores.get(i, torch.ones(shape[i])) for i in (0, 1))
        grid = rows[:, None] * columns
    else:
        given = ", ".join(f"{i}: {tuple(t.shape)}" for i, t in sorted(scores.items()))
        raise MaskError(f"{weight!r} has scores of shapes {given}; expected one grid, or row and column scores")
    if grid.numel() == 0 or shape[0] % grid.shape[0] or shape[1] % grid.shape[1]:
        raise MaskError(f"{weight!r} of shape {shape} does not divide into a grid of {tuple(grid.shape)} blocks")
    return grid
