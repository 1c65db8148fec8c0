"""transformers' own ONNX Runtime fusions, as one more form to measure."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult


class TransformersFusions(InPlacePass):
    """``transformers.exporters.onnxruntime_fusions.fuse_for_onnxruntime`` for the CPU provider.

    It writes BiasGelu and SkipLayerNormalization out, and merges the projections. On the machines measured so far the
    fused normalisation costs more on the CPU than all the rest saves (docs/benchmarks-onnx.md), so no default has it;
    `bpc.emit.autotune` tries it.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Fuse the main graph."""
        from transformers.exporters.onnxruntime_fusions import fuse_for_onnxruntime  # loads onnxscript's rewriter

        before = _operators(model)
        fuse_for_onnxruntime(model, "cpu")
        return PassResult(model, _operators(model) != before)


def _operators(model: ir.Model) -> Counter[tuple[str, str]]:
    return Counter((node.domain, node.op_type) for node in model.graph.all_nodes())
