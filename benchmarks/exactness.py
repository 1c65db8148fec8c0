"""How exact a shrink of BERT-base (random weights) is under the heads and dims of a published model.

python benchmarks/exactness.py          float32
python benchmarks/exactness.py 64       float64
"""

from __future__ import annotations

import sys

import torch

import passes
from bpc.bench.published import bert_base_model, example_inputs, published_model, structure_masks
from passes.structure.roles import find_roles

NUMBER = 0


def main(bits: int = 32) -> None:
    structure = published_model(NUMBER)
    model = bert_base_model().to({32: torch.float32, 64: torch.float64}[bits])
    graph = passes.trace(model, example_inputs())
    masks = structure_masks(find_roles(graph), structure.pruned_heads, structure.ffn_dims)
    report = passes.shrink(graph, masks).report
    print(f"{report.parameters_before:,} parameters became {report.parameters_after:,}: {report.agreement}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
