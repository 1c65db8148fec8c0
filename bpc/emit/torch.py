"""Small graphs under torch: compiled in place, as a ``.pt2`` program, or as an AOTInductor package."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

from bpc.emit.onnx import graph_of
from bpc.emit.storage import Staging
from passes.frontend.trace import exported_program


def compile_graph(source: Any, *, dynamic: bool | None = None, mode: str | None = None) -> Callable[..., Any]:
    """``torch.compile`` of the graph behind ``source`` (a traced graph, shrink result or dense model), for inference.

    ``dynamic`` and ``mode`` are torch.compile's; ``mode="reduce-overhead"`` takes CUDA graphs. The shapes a small
    model meets are few: ``dynamic=False`` compiles one kernel set per shape, the fastest. For half precision convert
    the graph first (`bpc.emit.half.convert_graph`).
    """
    compiled = torch.compile(graph_of(source), dynamic=dynamic, mode=mode)

    def run(*args: Any, **kwargs: Any) -> Any:
        with torch.inference_mode():
            return compiled(*args, **kwargs)

    return run


def save_program(source: Any, path: str | os.PathLike[str]) -> Path:
    """Write the graph as a ``.pt2`` file (``torch.export.save``), dynamic sizes kept; complete or not at all."""
    program = exported_program(graph_of(source))
    with Staging(path) as staging:
        staged = staging.directory / staging.destination.name
        torch.export.save(program, staged)
        _load_program(staged)
        os.replace(staged, staging.destination)
    return Path(path)


def load_program(path: str | os.PathLike[str]) -> fx.GraphModule:
    """The module of a ``.pt2`` file. Weights are read as tensors only (``weights_only``), never unpickled as objects.

    Raises FileNotFoundError, or ValueError for a file that is no exported program.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        program = _load_program(Path(path))
    except Exception as error:
        raise ValueError(f"{path} is no program written by torch.export.save: {error}") from error
    module = program.module(check_guards=False)
    assert isinstance(module, fx.GraphModule)
    return module


def _load_program(path: Path) -> ExportedProgram:
    return torch.export.load(path)


def save_aot_package(source: Any, path: str | os.PathLike[str]) -> Path:
    """Compile ahead of time with AOTInductor into a ``.pt2`` package (C++ or CUDA code, weights included).

    Needs a C++ compiler. The package runs without Python: ``torch._inductor.aoti_load_package(path)``, or from C++. It
    is code for this machine: load only packages you trust.
    """
    program = exported_program(graph_of(source))
    with Staging(path) as staging:
        staged = staging.directory / "package.pt2"
        torch._inductor.aoti_compile_and_package(program, package_path=str(staged))
        os.replace(staged, staging.destination)
    return Path(path)
