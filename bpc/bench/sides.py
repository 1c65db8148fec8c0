"""What a timing worker loads for one side of a comparison, and the arithmetic that side does."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import torch
from torch.utils import _pytree as pytree

from bpc.emit.axes import dynamic_axes, resized_inputs
from bpc.emit.flops import FlopModel, flop_model
from bpc.emit.half import convert_graph
from bpc.emit.ir_tools import read_model
from bpc.emit.onnx import DTYPE_KEY, FLOPS_KEY, OPSET, export_onnx, graph_of
from bpc.runtimes import onnxruntime, openvino
from bpc.timing.feed import random_feed
from passes.frontend.trace import exported_program
from passes.ir.info import trace_info

Runtime = Literal["onnx", "eager", "compiled", "cudagraphs", "openvino"]
Device = Literal["cpu", "cuda"]

# The dtypes each runtime has kernels for (for the CPU see docs/benchmarks-onnx.md).
_FLOATS = ("float32", "bfloat16", "float16")
DTYPES: dict[str, dict[str, tuple[str, ...]]] = {
    "cpu": {
        "onnx": ("float32", "int8"),
        "eager": _FLOATS,
        "compiled": _FLOATS,
        "openvino": ("float32", "bfloat16", "int8"),
    },
    "cuda": dict.fromkeys(("onnx", "eager", "compiled", "cudagraphs"), _FLOATS),
}
READ_FILES = ("onnx", "openvino")
_HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}
PEAK_SIZE = 2048


@dataclass(frozen=True)
class Side:
    """The worker's load command (threads are added to it), the FLOPs by batch and length (None: unknown), the dtype."""

    command: dict[str, Any]
    flops: FlopModel | None
    dtype: str


@dataclass(frozen=True)
class Tuned:
    """An .onnx file to open with some of ONNX Runtime's own optimizers switched off, by name."""

    path: Path
    disabled: tuple[str, ...]


def require_device(device: str, runtime: str) -> None:
    """Raise ValueError, saying what is missing, where ``runtime`` cannot run on ``device`` here."""
    if runtime in READ_FILES:
        {"onnx": onnxruntime, "openvino": openvino}[runtime]()
    if device != "cuda":
        return
    if not torch.cuda.is_available():
        raise ValueError(f'device="cuda": torch {torch.__version__} sees no CUDA GPU on this machine')
    if runtime == "onnx" and "CUDAExecutionProvider" not in onnxruntime().get_available_providers():
        raise ValueError(
            'device="cuda": this ONNX Runtime has no CUDA provider. In its place (pip uninstall onnxruntime): '
            'pip install "block-pruning-compiler[gpu]"'
        )


def prepare(
    source: Any,
    folder: Path,
    runtime: Runtime,
    dtype: str,
    batch: int,
    length: int,
    device: Device = "cpu",
    check: bool = True,
) -> Side:
    """Write what a worker needs to run ``source`` (see `bpc.bench.comparison.compare`) into ``folder``.

    ``check``: as for `bpc.export_onnx`. Raises ValueError for a dtype the runtime does not have, and a file where a
    graph is needed.
    """
    if device not in DTYPES:
        raise ValueError(f"device={device!r} is not one of {', '.join(DTYPES)}")
    if runtime not in DTYPES[device]:
        raise ValueError(f"runtime={runtime!r} on {device}: choose one of {', '.join(DTYPES[device])}")
    folder.mkdir()
    if isinstance(source, Tuned):
        side = _onnx_side(source.path, folder, batch, length)
        return replace(side, command={**side.command, "disabled": list(source.disabled)})
    if isinstance(source, str | os.PathLike):
        if runtime not in READ_FILES:
            raise ValueError(f"{source} is a file: runtime={runtime!r} needs a graph")
        side = _onnx_side(Path(source), folder, batch, length)
        return side if runtime == "onnx" else _openvino_side(side, dtype)
    if dtype not in DTYPES[device][runtime]:
        raise ValueError(f"{runtime} has no {dtype} on {device}; it has {', '.join(DTYPES[device][runtime])}")
    if runtime in READ_FILES:
        kind = written_dtype(runtime, dtype)
        path = export_onnx(source, folder / "model.onnx", device, kind, check=check).path  # type: ignore[arg-type]
        side = _onnx_side(path, folder, batch, length)
        return side if runtime == "onnx" else _openvino_side(side, dtype)
    return _torch_side(source, folder, runtime, dtype, batch, length)


def _onnx_side(path: Path, folder: Path, batch: int, length: int) -> Side:
    model = read_model(path)
    text = model.metadata_props.get(FLOPS_KEY)
    flops = None if text is None else FlopModel.from_json(text)
    kind = model.metadata_props.get(DTYPE_KEY, "float32")
    inputs = folder / "inputs.npz"
    np.savez(inputs, allow_pickle=False, **random_feed(model, batch, length))
    return Side({"kind": "onnx", "path": str(path), "inputs": str(inputs)}, flops, kind)


def written_dtype(runtime: str, dtype: str) -> str:
    """The dtype of the file that a runtime reads: OpenVINO makes bfloat16 of a float32 file as it loads it."""
    return "float32" if runtime == "openvino" and dtype == "bfloat16" else dtype


def _openvino_side(side: Side, dtype: str) -> Side:
    """The same file under OpenVINO, with its precision hint given: left out, it is bf16 where the CPU has that."""
    half = dtype == "bfloat16" and side.dtype == "float32"
    command = {**side.command, "kind": "openvino", "hint": "bf16" if half else "f32"}
    return replace(side, command=command, dtype="bfloat16" if half else side.dtype)


def _torch_side(source: Any, folder: Path, runtime: Runtime, dtype: str, batch: int, length: int) -> Side:
    graph = graph_of(source)
    program = exported_program(graph)
    axes = dynamic_axes(graph, program)
    if dtype in _HALF:
        program = exported_program(convert_graph(graph, _HALF[dtype]))
    torch.export.save(program, folder / "model.pt2")
    info = trace_info(graph)
    leaves, spec = pytree.tree_flatten((info.args, info.kwargs))
    # A first axis has another name where nothing reads its input any more; its rows are examples all the same.
    rows = {name for places in axes.names.values() for axis, name in places.items() if axis == 0}
    fresh = iter(resized_inputs(graph, axes, {**dict.fromkeys(rows, batch), "batch": batch, "sequence": length}))
    leaves = [next(fresh) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    args, kwargs = pytree.tree_unflatten(leaves, spec)
    torch.save({"args": args, "kwargs": kwargs}, folder / "inputs.pt")
    command = {
        "kind": runtime,
        "path": str(folder / "model.pt2"),
        "inputs": str(folder / "inputs.pt"),
        "modules": _container_modules(program),
    }
    return Side(command, flop_model(graph, axes), dtype)


def _container_modules(program: torch.export.ExportedProgram) -> list[str]:
    """Modules that define the containers of a program's inputs and outputs: importing them registers the containers,
    and without that the file does not load."""
    specs = [spec for spec in (program.call_spec.in_spec, program.call_spec.out_spec) if spec is not None]
    names = set()
    while specs:
        spec = specs.pop()
        specs += spec.children()
        if isinstance(spec.type, type) and spec.type.__module__ != "builtins":
            names.add(spec.type.__module__)
    return sorted(names)


def one_product(folder: Path) -> dict[str, Any]:
    """The load command of a file with one 2048³ float32 MatMul, weight constant."""
    rows = ir.Value(name="rows", shape=ir.Shape([PEAK_SIZE] * 2), type=ir.TensorType(ir.DataType.FLOAT))
    generator = np.random.default_rng(0)
    weight = ir.Value(name="weight", const_value=ir.tensor(_square(generator)))
    product = ir.node("MatMul", [rows, weight])
    product.outputs[0].shape, product.outputs[0].type = rows.shape, rows.type
    graph = ir.Graph([rows], product.outputs, nodes=[product], initializers=[weight], opset_imports={"": OPSET})
    ir.save(ir.Model(graph, ir_version=10), folder / "product.onnx")
    np.savez(folder / "inputs.npz", rows=_square(generator))
    return {"kind": "onnx", "path": str(folder / "product.onnx"), "inputs": str(folder / "inputs.npz")}


def _square(generator: np.random.Generator) -> np.ndarray:
    return generator.standard_normal((PEAK_SIZE, PEAK_SIZE), dtype=np.float32)
