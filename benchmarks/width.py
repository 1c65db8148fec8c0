"""A narrow encoder (MiniLM's shape: 6 layers of width 384) against its small forms, in float32.

    python benchmarks/width.py

*Half* has half of the heads and FFN dims in every layer; *uneven* has 17 of 72 heads and 3,059 of 9,216 FFN dims, more
in the first layers, as `make demo` leaves them. 8 x 64 tokens, one thread and its CPU seconds, sides taking turns.
"""

from __future__ import annotations

import torch
from rich.console import Console
from torch import fx
from transformers import BertConfig, BertForSequenceClassification

import passes
from bpc.bench.comparison import compare_all
from bpc.bench.published import example_inputs, structure_masks
from bpc.results.comparison import comparison_table
from passes.structure.roles import find_roles

HEADS, FFN_DIMS, LAYERS = 12, 1536, 6
SHAPES = {"half": ([6] * LAYERS, [768] * LAYERS), "uneven": ([5, 4, 2, 2, 2, 2], [700, 600, 550, 500, 400, 309])}


def narrow() -> fx.GraphModule:
    """The dense model with random weights, traced."""
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=384, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=FFN_DIMS, num_labels=3
    )
    return passes.trace(BertForSequenceClassification(config).eval(), example_inputs())


def main() -> None:
    dense = narrow()
    small = {}
    for name, (heads, dims) in SHAPES.items():
        masks = structure_masks(find_roles(dense), [range(kept, HEADS) for kept in heads], dims)
        small[name] = passes.shrink(dense, masks, verify=False).graph_module
    found = compare_all(dense, small, batch=8, length=64, repeats=15, threads=1, clock="cpu", peak=False)
    Console(width=160).print(comparison_table(found))


if __name__ == "__main__":
    main()
