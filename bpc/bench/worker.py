"""A timing worker: one process that holds one model and times it when told to (``python -m bpc.bench.worker``).

Two ONNX Runtime sessions in one process each keep a pool of spinning threads; on few cores they measure each other.
So each side lives in a process of its own and runs with the settings a user's plain session has; the sides take turns.
Protocol: one JSON object per line on stdin, one per line on stdout.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

Run = Callable[[], object]


def _onnx(path: str, inputs: str, threads: int, disabled: list[str]) -> Run:
    import numpy
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled
    )
    with numpy.load(inputs) as arrays:
        feed = {value.name: arrays[value.name] for value in session.get_inputs()}
    return lambda: session.run(None, feed)


def _torch(path: str, inputs: str, threads: int, modules: list[str], compiled: bool) -> Run:
    import torch

    for name in modules:
        importlib.import_module(name)
    torch.set_num_threads(threads)
    module = torch.export.load(path).module(check_guards=False)
    arguments = torch.load(inputs, weights_only=True)
    forward: Callable[..., Any] = torch.compile(module, dynamic=False) if compiled else module

    def run() -> object:
        with torch.inference_mode():
            return forward(*arguments["args"], **arguments["kwargs"])

    return run


def _matmul(size: int, dtype: str, threads: int) -> Run:
    import torch

    torch.set_num_threads(threads)
    a, b = (torch.randn(size, size).to(getattr(torch, dtype)) for _ in range(2))
    return lambda: a @ b


def _load(command: dict[str, Any]) -> Run:
    kind, threads = command["kind"], command["threads"]
    if kind == "onnx":
        return _onnx(command["path"], command["inputs"], threads, command.get("disabled", []))
    if kind in ("eager", "compiled"):
        return _torch(command["path"], command["inputs"], threads, command["modules"], kind == "compiled")
    if kind == "matmul":
        return _matmul(command["size"], command["dtype"], threads)
    raise ValueError(f"unknown kind {kind!r}")


def _time(run: Run, warmup: int, repeats: int, clock: str) -> list[float]:
    now = {"wall": time.perf_counter, "cpu": time.process_time}[clock]
    for _ in range(warmup):
        run()
    seconds = []
    for _ in range(repeats):
        start = now()
        run()
        seconds.append(now() - start)
    return seconds


def main() -> None:
    """Serve commands until stdin closes."""
    run: Run | None = None
    answers = sys.stdout
    for line in sys.stdin:
        command = json.loads(line)
        try:
            with contextlib.redirect_stdout(sys.stderr):  # libraries that print must not break the protocol
                if command["do"] == "load":
                    run = _load(command)
                    answer: dict[str, Any] = {"ok": True}
                else:
                    assert run is not None
                    answer = {"seconds": _time(run, command["warmup"], command["repeats"], command["clock"])}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
