"""Small graphs under torch: compiled in place, as a ``.pt2`` program, or as an AOTInductor package."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

from bpc.emit.onnx import graph_of
from bpc.writing import new_file
from passes.frontend.enforce import guarded, only_of_sizes
from passes.frontend.trace import exported_program
from passes.ir.info import Guard, trace_info

_GUARDS = "bpc_guards.json"  # beside the program in a .pt2 file


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
    graph = graph_of(source)
    program = exported_program(graph)
    guards = json.dumps([asdict(guard) for guard in trace_info(graph).guards])
    with new_file(path) as staged:
        torch.export.save(program, staged, extra_files={_GUARDS: guards})
        _load_program(staged)
    return Path(path)


def load_program(path: str | os.PathLike[str]) -> fx.GraphModule:
    """The module of a ``.pt2`` file. Weights are read as tensors only (``weights_only``), never unpickled as objects.

    It refuses the inputs that the graph refused (`InputError`).

    Raises FileNotFoundError, or ValueError for a file that is no exported program.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        program, guards = _load_program(Path(path))
    except Exception as error:
        raise ValueError(f"{path} is no program written by torch.export.save: {error}") from error
    module = program.module(check_guards=guards is None)  # a file that others wrote has torch's own
    assert isinstance(module, fx.GraphModule)
    if guards is not None:
        guarded(module, guards)
    return module


def _load_program(path: Path) -> tuple[ExportedProgram, list[Guard] | None]:
    extra = {_GUARDS: ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a file of others has no such entry
        program = torch.export.load(path, extra_files=extra)
    if not extra[_GUARDS]:
        return program, None
    guards = [Guard(**guard) for guard in json.loads(extra[_GUARDS])]
    if not all(only_of_sizes(guard) for guard in guards):  # they become code
        raise ValueError(f"{_GUARDS} holds more than conditions on the sizes and values of inputs")
    return program, guards


def save_aot_package(source: Any, path: str | os.PathLike[str]) -> Path:
    """Compile ahead of time with AOTInductor into a ``.pt2`` package (C++ or CUDA code, weights included).

    Needs a C++ compiler. The package runs without Python: ``torch._inductor.aoti_load_package(path)``, or from C++. It
    does not check its inputs as the graph does. It is code for this machine: load only packages you trust.
    """
    program = exported_program(graph_of(source))
    with new_file(path) as staged, tempfile.TemporaryDirectory(dir=staged.parent) as folder:
        package = Path(folder) / "package.pt2"  # the compiler insists on the suffix
        torch._inductor.aoti_compile_and_package(program, package_path=str(package))
        package.replace(staged)
    return Path(path)
