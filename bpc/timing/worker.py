"""A timing worker: one process that holds one model and times it when told to (``python -m bpc.timing.worker``).

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


def _onnx(path: str, inputs: str, threads: int, disabled: list[str], device: str) -> Run:
    import numpy

    from bpc.runtimes import onnxruntime

    runtime = onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"] if device == "cuda" else ["CPUExecutionProvider"]
    if device == "cuda":
        runtime.preload_dlls()  # CUDA and cuDNN from torch's wheels
    session = runtime.InferenceSession(path, options, providers=providers, disabled_optimizers=disabled)
    if session.get_providers() != providers:
        raise RuntimeError(f"ONNX Runtime fell back to {', '.join(session.get_providers())}")
    with numpy.load(inputs) as arrays:
        feed = {value.name: arrays[value.name] for value in session.get_inputs()}
    if device == "cpu":
        return lambda: session.run(None, feed)
    return _bound(session, feed, device)


def _openvino(path: str, inputs: str, threads: int, hint: str) -> Run:
    import numpy

    from bpc.runtimes import openvino

    runtime = openvino()
    options = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads}
    compiled = runtime.Core().compile_model(path, "CPU", options)
    with numpy.load(inputs) as arrays:
        feed = {port.get_any_name(): arrays[port.get_any_name()] for port in compiled.inputs}
    request = compiled.create_infer_request()
    return lambda: request.infer(feed)


def _bound(session: Any, feed: dict[str, Any], device: str) -> Run:
    """A run whose inputs lie on ``device`` and whose outputs stay there; it returns when they are complete."""
    import onnxruntime

    binding = session.io_binding()
    for name, array in feed.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array, device, 0))
    for value in session.get_outputs():
        binding.bind_output(value.name, device)

    def run() -> list[Any]:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return binding.get_outputs()

    return run


def _torch(path: str, inputs: str, threads: int, modules: list[str], kind: str, device: str) -> Run:
    import torch
    from torch.export.passes import move_to_device_pass
    from torch.utils import _pytree as pytree

    for name in modules:
        importlib.import_module(name)
    torch.set_num_threads(threads)
    module = move_to_device_pass(torch.export.load(path), device).module(check_guards=False)
    arguments = pytree.tree_map_only(torch.Tensor, lambda t: t.to(device), torch.load(inputs, weights_only=True))
    forward: Callable[..., Any] = module
    if kind != "eager":
        forward = torch.compile(module, dynamic=False, mode="reduce-overhead" if kind == "cudagraphs" else None)

    def run() -> object:
        with torch.inference_mode():
            return forward(*arguments["args"], **arguments["kwargs"])

    return run


def _matmul(size: int, dtype: str, threads: int, device: str) -> Run:
    import torch

    torch.set_num_threads(threads)
    a, b = (torch.randn(size, size).to(device, getattr(torch, dtype)) for _ in range(2))
    return lambda: a @ b


def _load(command: dict[str, Any]) -> Run:
    kind, threads, device = command["kind"], command["threads"], command.get("device", "cpu")
    if kind == "onnx":
        return _onnx(command["path"], command["inputs"], threads, command.get("disabled", []), device)
    if kind == "openvino":
        return _openvino(command["path"], command["inputs"], threads, command.get("hint", "f32"))
    if kind in ("eager", "compiled", "cudagraphs"):
        return _torch(command["path"], command["inputs"], threads, command["modules"], kind, device)
    if kind == "matmul":
        return _matmul(command["size"], command["dtype"], threads, device)
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


def _time_on_gpu(run: Run, warmup: int, repeats: int) -> list[float]:
    """Seconds between events before and after each run, on the device's own clock."""
    import torch

    for _ in range(warmup):
        run()
    seconds = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        run()
        end.record()
        end.synchronize()
        seconds.append(start.elapsed_time(end) / 1e3)
    return seconds


def main() -> None:
    """Serve commands until stdin closes."""
    run: Run | None = None
    events = False
    answers = sys.stdout
    for line in sys.stdin:
        command = json.loads(line)
        try:
            with contextlib.redirect_stdout(sys.stderr):  # libraries that print must not break the protocol
                if command["do"] == "load":
                    run = _load(command)
                    # ONNX Runtime has a stream of its own; its run returns when the outputs are there.
                    events = command.get("device") == "cuda" and command["kind"] != "onnx"
                    answer: dict[str, Any] = {"ok": True}
                else:
                    assert run is not None
                    counts = command["warmup"], command["repeats"]
                    answer = {
                        "seconds": _time_on_gpu(run, *counts) if events else _time(run, *counts, command["clock"])
                    }
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
