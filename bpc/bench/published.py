"""The paper's published models, rebuilt as masks: speed depends on shapes, not on what the weights hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import torch
from torch import Tensor, fx
from transformers import BertConfig, BertForQuestionAnswering

import passes
from passes.analysis.roles import LinearRole, Roles, find_roles


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


def bert_base(seed: int = 0) -> fx.GraphModule:
    """BERT-base for question answering, random weights and biases, traced with dynamic batch and length."""
    torch.manual_seed(seed)
    model = BertForQuestionAnswering(BertConfig()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.02)
    ids = torch.randint(1000, 30000, (2, 16))
    example = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    return passes.trace(model, example)


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
    attentions = [b for b in blocks.values() if b[0].role.startswith("attention.")]
    ffns = [b for b in blocks.values() if b[0].role.startswith("ffn.")]
    if (len(attentions), len(ffns)) != (len(pruned_heads), len(ffn_dims)):
        raise ValueError(
            f"the graph has {len(attentions)} attentions and {len(ffns)} FFNs, the structure {len(pruned_heads)} and "
            f"{len(ffn_dims)}"
        )
    generator = torch.Generator().manual_seed(seed)
    masks: dict[str, Tensor] = {}
    for block, heads in zip(attentions, pruned_heads, strict=True):
        for linear in block:
            assert linear.heads is not None
            live = torch.ones(linear.heads, dtype=torch.bool)
            live[list(heads)] = False
            size = linear.in_features if linear.role == "attention.output" else linear.out_features
            masks |= _masks(linear, live.repeat_interleave(size // linear.heads))
    for block, dims in zip(ffns, ffn_dims, strict=True):
        inner = next(linear.in_features for linear in block if linear.role == "ffn.down")
        live = torch.zeros(inner, dtype=torch.bool)
        live[torch.randperm(inner, generator=generator)[:dims]] = True
        for linear in block:
            masks |= _masks(linear, live)
    return masks


def _masks(linear: LinearRole, live: Tensor) -> dict[str, Tensor]:
    leaves = linear.role in ("attention.output", "ffn.down")
    inner = 1 - linear.out_dim if leaves else linear.out_dim
    masks = {linear.weight: live.unsqueeze(1 - inner).expand(linear.shape).clone()}
    if linear.bias is not None and not leaves:
        masks[linear.bias] = live
    return masks


def rebuild(dense: fx.GraphModule, model: PublishedModel) -> fx.GraphModule:
    """``dense`` (`bert_base`) with the published heads and dims removed by `passes.shrink`."""
    masks = structure_masks(find_roles(dense), model.pruned_heads, model.ffn_dims)
    return passes.shrink(dense, masks, verify=False).graph_module  # the exported files are checked
