"""What to say where torch's ONNX exporter stops: which operator, where it comes from, and what other way there is."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import fx

from bpc.emit.check import ExportError
from passes.frontend.explain import described, first_line


def untranslated(error: Exception, graph: fx.GraphModule) -> ExportError:
    """An `ExportError` for what ``torch.onnx.export`` raised on ``graph``."""
    causes = list(_causes(error))
    for text in map(str, reversed(causes)):
        found = re.search(r"call_function\[target=torch\.ops\.([\w.]+)\]", text)
        if found is not None:
            operator = found[1]
            nodes = [n for n in graph.graph.nodes if str(n.target) in (operator, f"{operator}.default")]
            where = described(nodes[0]) if nodes else operator
            return ExportError(
                f"torch's ONNX exporter has no form of {operator}: {where}. Write the model without it, or run the "
                "graph in torch (a .pt2 program, bpc.emit.torch)"
            )
    return ExportError(
        f"torch's ONNX exporter cannot translate the graph: {first_line(causes[-1])}. "
        "A .pt2 program (bpc.emit.torch) holds the same graph"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, the first cause last."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__
