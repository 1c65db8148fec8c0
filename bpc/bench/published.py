"""The paper's published models, rebuilt as masks: speed depends on shapes, not on what the weights hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import torch
from torch import Tensor, fx, nn
from transformers import BertConfig, BertForQuestionAnswering

import passes
from passes.structure.role import Family, Role
from passes.structure.roles import LinearRole, Roles, find_roles


@dataclass(frozen=True)
class PublishedModel:
    """Shape and published figures of one model; ``speedup`` is over BERT-base, measured by its authors on a GPU."""

    id: int
    task: str
    method: str
    pruned_heads: tuple[tuple[int, ...], ...]
    ffn_dims: tuple[int, ...]
    speedup: float

    @property
    def heads_left(self) -> int:
        """Live heads of all layers (BERT-base has 144)."""
        return 12 * len(self.pruned_heads) - sum(map(len, self.pruned_heads))


def published_models() -> dict[int, PublishedModel]:
    """All published BERT-base models, by id."""
    text = resources.files("bpc.bench").joinpath("published.json").read_text()
    rows: list[dict[str, Any]] = json.loads(text)["models"]
    return {
        row["id"]: PublishedModel(
            row["id"],
            row["task"],
            row["method"],
            tuple(map(tuple, row["pruned_heads"])),
            tuple(row["ffn_dims"]),
            row["speedup"],
        )
        for row in rows
    }


def published_model(number: int) -> PublishedModel:
    """The published model with this id. Raises ValueError with the known ids."""
    models = published_models()
    if number not in models:
        raise ValueError(f"no published model {number}; there are {', '.join(map(str, models))}")
    return models[number]


def published_points(length: int = 384, task: str = "squadv1") -> dict[str, tuple[float, float]]:
    """{id: (arithmetic ratio, published speed-up)} of one task's models, at the paper's length."""
    dense = _encoder_flops([12] * 12, [3072] * 12, length)
    return {
        str(m.id): (
            dense / _encoder_flops([12 - len(gone) for gone in m.pruned_heads], m.ffn_dims, length),
            m.speedup,
        )
        for m in published_models().values()
        if m.task == task
    }


def _encoder_flops(heads: Sequence[int], ffn_dims: Sequence[int], length: int) -> int:
    """FLOPs per token of a BERT-base encoder: four projections and two products per head, two products per FFN dim."""
    per_head = 4 * 2 * 768 * 64 + 2 * 2 * length * 64
    return sum(h * per_head + f * 2 * 2 * 768 for h, f in zip(heads, ffn_dims, strict=True))


def bert_base_model(seed: int = 0) -> nn.Module:
    """BERT-base for question answering with random weights and biases."""
    torch.manual_seed(seed)
    model = BertForQuestionAnswering(BertConfig()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.02)
    return model


def example_inputs() -> dict[str, Tensor]:
    """Keyword arguments of `bert_base_model`, (2, 16)."""
    ids = torch.randint(1000, 30000, (2, 16))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}


def bert_base(seed: int = 0) -> fx.GraphModule:
    """`bert_base_model`, traced with dynamic batch and length."""
    return passes.trace(bert_base_model(seed), example_inputs())


def structure_masks(
    roles: Roles, pruned_heads: Sequence[Sequence[int]], ffn_dims: Sequence[int], seed: int = 0
) -> dict[str, Tensor]:
    """Masks that leave these heads and this many FFN dims (spread at random) in each layer, biases included.

    ``pruned_heads`` and ``ffn_dims`` have one entry per attention and per FFN of the graph, in order. Raises ValueError
    for other numbers of layers.
    """
    blocks: dict[str, list[LinearRole]] = {}
    for linear in roles:
        if linear.block_id is not None:
            blocks.setdefault(linear.block_id, []).append(linear)
    attentions = [b for b in blocks.values() if b[0].role.family is Family.ATTENTION]
    ffns = [b for b in blocks.values() if b[0].role.family is Family.FFN]
    if (len(attentions), len(ffns)) != (len(pruned_heads), len(ffn_dims)):
        raise ValueError(
            f"the graph has {len(attentions)} attentions and {len(ffns)} FFNs, the structure {len(pruned_heads)} and "
            f"{len(ffn_dims)}"
        )
    masks: dict[str, Tensor] = {}
    for block, heads in zip(attentions, pruned_heads, strict=True):
        for linear in block:
            assert linear.heads is not None
            live = torch.ones(linear.heads, dtype=torch.bool)
            live[list(heads)] = False
            size = linear.in_features if linear.role.leaves else linear.out_features
            masks |= _masks(linear, live.repeat_interleave(size // linear.heads))
    sizes = [next(linear.in_features for linear in block if linear.role is Role.FFN_DOWN) for block in ffns]
    for block, live in zip(ffns, random_dims(sizes, ffn_dims, seed), strict=True):
        for linear in block:
            masks |= _masks(linear, live)
    return masks


def random_dims(sizes: Sequence[int], counts: Sequence[int], seed: int = 0) -> list[Tensor]:
    """Per layer a bool mask of ``size`` dims with ``count`` of them set, at random."""
    generator = torch.Generator().manual_seed(seed)
    masks = []
    for size, count in zip(sizes, counts, strict=True):
        mask = torch.zeros(size, dtype=torch.bool)
        mask[torch.randperm(size, generator=generator)[:count]] = True
        masks.append(mask)
    return masks


def _masks(linear: LinearRole, live: Tensor) -> dict[str, Tensor]:
    leaves = linear.role.leaves
    inner = 1 - linear.out_dim if leaves else linear.out_dim
    masks = {linear.weight: live.unsqueeze(1 - inner).expand(linear.shape).clone()}
    if linear.bias is not None and not leaves:
        masks[linear.bias] = live
    return masks


def rebuild(dense: fx.GraphModule, model: PublishedModel, multiple: int = 1) -> fx.GraphModule:
    """``dense`` (`bert_base`) with the published heads and dims cut by `passes.shrink` (``multiple`` is its)."""
    masks = structure_masks(find_roles(dense), model.pruned_heads, model.ffn_dims)
    return passes.shrink(dense, masks, verify=False, multiple=multiple).graph_module  # the exported files are checked
