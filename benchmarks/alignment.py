"""Do kernels like round dims? An FFN of BERT-base's width with n inner dims on ONNX Runtime, n rounded up to 8, 16, 64.

    python benchmarks/alignment.py

One thread and its CPU seconds, so that other work on the machine matters little; all sizes take turns, medians.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnxruntime

WIDTH, ROWS, DIMS, MULTIPLES, TURNS = 768, (1024, 128), (250, 487, 545, 1001), (1, 8, 16, 64), 31


def ffn(rows: int, dims: int) -> ir.Model:
    """Add(MatMul(Gelu(Add(MatMul(x, W1), b1)), W2), b2)."""
    kind = ir.TensorType(ir.DataType.FLOAT)
    generator = np.random.default_rng(0)
    x = ir.Value(name="x", shape=ir.Shape([rows, WIDTH]), type=kind)
    shapes = {"w1": (WIDTH, dims), "b1": (dims,), "w2": (dims, WIDTH), "b2": (WIDTH,)}
    w1, b1, w2, b2 = weights = [
        ir.Value(name=name, const_value=ir.tensor(generator.standard_normal(shape, dtype=np.float32), name=name))
        for name, shape in shapes.items()
    ]
    nodes, value = [], x
    for operator, inputs in (("MatMul", [w1]), ("Add", [b1]), ("Gelu", []), ("MatMul", [w2]), ("Add", [b2])):
        nodes.append(ir.node(operator, [value, *inputs]))
        value = nodes[-1].outputs[0]
        value.type = kind
    value.shape = x.shape
    graph = ir.Graph([x], [value], nodes=nodes, initializers=weights, opset_imports={"": 23})
    return ir.Model(graph, ir_version=10)


def runner(rows: int, dims: int) -> Callable[[], float]:
    """CPU seconds of one run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    content = ir.to_proto(ffn(rows, dims)).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    feed = {"x": np.random.default_rng(1).standard_normal((rows, WIDTH), dtype=np.float32)}

    def run() -> float:
        start = time.process_time()
        session.run(None, feed)
        return time.process_time() - start

    return run


def main() -> None:
    print("| rows | dims | " + " | ".join(f"to {m}" for m in MULTIPLES[1:]) + " |\n|---|---|---|---|---|")
    for rows in ROWS:
        for dims in DIMS:
            runners = [runner(rows, -(-dims // m) * m) for m in MULTIPLES]
            seconds: list[list[float]] = [[] for _ in runners]
            for _ in range(TURNS):
                for log, run in zip(seconds, runners, strict=True):
                    log.append(run())
            first, *others = (statistics.median(log) for log in seconds)
            print(f"| {rows} | {dims} | " + " | ".join(f"{other / first - 1:+.1%}" for other in others) + " |")


if __name__ == "__main__":
    main()
