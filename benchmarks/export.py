"""What an ONNX export costs: seconds and peak memory, for BERT-base (random weights) as it is.

    python benchmarks/export.py                 float32 and int8, as a table
    python benchmarks/export.py float32         one case, as JSON

Each case runs in its own process. Seconds are those of `bpc.export_onnx` with its check, from a traced graph. Memory is
the growth of the process's peak resident set from just before the model is built: model, graph, file and check count.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from memory import peak, resident

CASES = ("float32", "int8")
THREADS = 2


def measure(dtype: str) -> dict[str, Any]:
    """Export BERT-base once."""
    import torch
    from torch import nn

    import passes
    from bpc import export_onnx
    from bpc.bench.published import bert_base

    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as folder:
        tiny = passes.trace(nn.Linear(4, 4).eval(), torch.randn(2, 4))
        export_onnx(tiny, Path(folder) / "tiny.onnx", dtype=dtype)  # type: ignore[arg-type]  # imports, first calls
        before = resident()
        graph = bert_base()
        weights = sum(p.numel() * p.element_size() for p in graph.parameters())
        written = export_onnx(graph, Path(folder) / "bert.onnx", dtype=dtype)  # type: ignore[arg-type]
        size = written.path.stat().st_size
    return {
        "dtype": dtype,
        "weights MB": round(weights / 1e6),
        "file MB": round(size / 1e6),
        "export s": round(written.seconds, 1),
        "peak/weights": round((peak() - before) / weights, 2),
    }


def main(arguments: list[str]) -> None:
    if arguments:
        print(json.dumps(measure(arguments[0])))
        return
    rows = []
    for case in CASES:
        done = subprocess.run([sys.executable, __file__, case], check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")


if __name__ == "__main__":
    main(sys.argv[1:])
