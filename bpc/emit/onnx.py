"""ONNX files of small graphs, written in the form that is fastest for their target.

`export_onnx` is ``torch.onnx.export`` of the graph, then a short list of graph passes (`bpc.emit.recipe`), then a check
against torch on ONNX Runtime. The file is fast in a plain ``onnxruntime.InferenceSession(path)``: nothing depends on
session options.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import onnx
import onnx_ir as ir
import torch
from torch import fx
from torch.utils import _pytree as pytree

from bpc.emit import recipe as recipes
from bpc.emit.axes import (
    DynamicAxes,
    Layout,
    dynamic_axes,
    fix_axes,
    input_names,
    name_axes,
    output_names,
    settled_axes,
)
from bpc.emit.check import TOLERANCE, ExportError, FileAgreement, check_file, open_session
from bpc.emit.embeddings import Embeddings, QuantizeEmbeddings, embedding_tables, with_stored_tables
from bpc.emit.floats import ConvertFloats
from bpc.emit.flops import flop_model
from bpc.emit.grouped import SplitStacks, translations
from bpc.emit.ir_tools import read_model
from bpc.emit.recipe import Recipe, Target, default_recipe
from bpc.emit.rotary import ExpandRotaryCaches
from bpc.emit.sdpa import exportable_attention
from bpc.emit.storage import new_model_file, write
from bpc.emit.stored import Storage, StoreHalf
from bpc.emit.tables import IndexTables
from bpc.emit.untranslated import untranslated
from bpc.emit.wide import in_float32
from bpc.runtimes import onnxruntime
from bpc.timing.feed import INPUTS_KEY
from passes.certificate import Certificate
from passes.frontend.trace import exported_program
from passes.ir.info import trace_info
from passes.verify.inputs import shown_value

Dtype = Literal["float32", "bfloat16", "float16", "int8"]

# From 23 on torch.onnx writes attention as one operator, which the recipes start from; ONNX Runtime 1.23 (our lowest)
# runs it.
OPSET = 23

_HALF = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}

# Metadata keys of a written file.
RECIPE_KEY, DTYPE_KEY, FLOPS_KEY, TUNING_KEY = "bpc.recipe", "bpc.dtype", "bpc.flops", "bpc.autotune"
EMBEDDINGS_KEY, STORAGE_KEY = "bpc.embeddings", "bpc.storage"
CERTIFICATE_KEY = "bpc.certificate"  # of `bpc.DenseModel` and `passes.ShrinkResult`


@dataclass(frozen=True)
class OnnxExport:
    """What `export_onnx` wrote: the file, the recipe that made it, and how it compares with the graph."""

    path: Path
    recipe: Recipe
    dtype: str
    passes: tuple[str, ...]  # those that changed something
    agreement: FileAgreement | None  # None where check=False
    axes: Mapping[str, int]  # names of the dynamic axes, with the example's sizes
    seconds: float
    not_run: str = ""  # why only the float32 form was compared, where the machine runs no file of this dtype
    kept: Mapping[str, str] = field(default_factory=dict)  # weights not stored as asked for, and why


def export_onnx(
    source: Any,
    path: str | os.PathLike[str],
    target: Target = "cpu",
    dtype: Dtype = "float32",
    *,
    recipe: Recipe | None = None,
    autotune: bool = False,
    tuning_shapes: Sequence[tuple[int, int]] = ((8, 128), (1, 128)),
    calibration: Iterable[Mapping[str, Any]] | None = None,
    embeddings: Embeddings | None = None,
    storage: Storage = "float32",
    check: bool = True,
    opset: int = OPSET,
    layout: Layout | None = None,
) -> OnnxExport:
    """Write ``source`` as an ONNX file at ``path``.

    Args:
        source: a traced graph (`passes.trace`, `passes.shrink`), or anything with a ``.graph_module`` that is one
            (`bpc.DenseModel`, `passes.ShrinkResult`). The dense model's own trace gives the baseline file.
        path: the ``.onnx`` file. Written beside the destination, checked, then moved in place; over 1.9 GB of weights
            go to ``<path>.data``.
        target: ONNX Runtime's CPU or CUDA provider.
        dtype: what is written, whatever the model is held in: "float32"; "int8" (linear layers, see
            `bpc.emit.quantize`); for CUDA also "float16" and "bfloat16".
        recipe: the forms to use, e.g. read from another file with `read_recipe`; None: the shipped default of the
            target.
        autotune: measure the forms on this machine (CPU target) instead, at the (batch, length) pairs of
            ``tuning_shapes``; what was measured is stored in the file, and its recipe repeats the export elsewhere.
        calibration: for "int8": inputs {name: array} whose ranges fix the activations' scales; None: scaled at each
            run.
        embeddings: how tables of embeddings are stored: "float32"; "int8", a scale per row; "int4", a scale per 32
            numbers (`bpc.emit.embeddings`). Rows are looked up as they are stored, the table itself never becomes
            float32. None: "int8" for dtype "int8", else "float32".
        storage: "float16" stores all other large float32 constants in half the bytes; a runtime widens them as it loads
            the file, and computes in float32. Both for dtypes "float32" and "int8"; `OnnxExport.kept` names what would
            lose too much and stays.
        check: compare the file with the graph on ONNX Runtime: the example, and every dynamic axis much larger and much
            smaller. An axis that holds at the example's size alone becomes static in the file (``agreement.fixed``).
        layout: names of inputs, outputs and axes, and inputs to check on, where they are settled; None: they are found.
        opset: 20 or later. The attention forms need 23; below, attention is exported written out.

    Raises `bpc.emit.check.ExportError` if the file disagrees with the graph or ONNX lacks one of its operators,
    ValueError for unusable arguments, `bpc.runtimes.RuntimeMissing` (one too) without ONNX Runtime.
    """
    start = time.perf_counter()
    if opset < 20:
        raise ValueError(f"opset={opset}: bpc writes opset 20 and later (Gelu is an operator from there on)")
    if target not in get_args(Target):
        raise ValueError(f"target={target!r} is not one of {', '.join(get_args(Target))}")
    if dtype not in TOLERANCE:
        raise ValueError(f"dtype={dtype!r} is not one of {', '.join(TOLERANCE)}")
    if dtype in _HALF and target == "cpu":
        raise ValueError(
            f'dtype="{dtype}": ONNX Runtime\'s CPU provider has no half-precision products and would convert back and '
            'forth; for the CPU use dtype="int8", half precision with target="cuda"'
        )
    if calibration is not None and dtype != "int8":
        raise ValueError(f'calibration inputs are for dtype="int8", not {dtype}')
    if embeddings is None:
        embeddings = "int8" if dtype == "int8" else "float32"
    _check_storage(dtype, embeddings, storage)
    if check or autotune or dtype == "int8":
        onnxruntime()  # now, and not after the work
    graph = in_float32(graph_of(source), check=check)
    program = exported_program(exportable_attention(graph))
    axes = dynamic_axes(graph, program) if layout is None else settled_axes(graph, program, layout)
    cases = None if layout is None else layout.cases
    model = to_onnx(graph, program, axes, opset, layout)
    _describe(model, dtype, graph, axes)
    model.metadata_props.update({EMBEDDINGS_KEY: embeddings, STORAGE_KEY: storage})
    certificate: Certificate | None = getattr(source, "certificate", None)
    if certificate is not None:
        model.metadata_props[CERTIFICATE_KEY] = certificate.to_json()
    recipe = recipe or default_recipe(target, dtype)
    if autotune:
        recipe = _autotune(model, recipe, target, tuning_shapes)
    changed = recipes.apply(recipe, model)
    model.metadata_props[RECIPE_KEY] = recipe.to_json()
    with new_model_file(path) as staged:
        agreement = None
        if check and (dtype in _HALF or (dtype, storage) == ("float32", "float16")):
            # Half precision may not run here, and rounding hides errors: the form is checked in float32 first, then
            # only numbers change.
            with tempfile.TemporaryDirectory(dir=staged.parent) as folder:
                exact = write(model, Path(folder), "float32.onnx")
                agreement = check_file(exact, graph, axes, tolerance=TOLERANCE["float32"], cases=cases)
        if dtype in _HALF:
            ConvertFloats(_HALF[dtype])(model)
        elif dtype == "int8":
            model = _quantized(model, calibration)
        tables = QuantizeEmbeddings(embedding_tables(graph), 4 if embeddings == "int4" else 8)
        halves = StoreHalf()
        if embeddings != "float32":
            tables(model)
        if storage == "float16":
            halves(model)
        write(model, staged.parent, staged.name)
        del model  # its weights need not stay in memory while the file is checked
        not_run = _cannot_run(staged) if check and dtype in _HALF else ""
        if check and not not_run:
            stored = with_stored_tables(graph, tables.stored) if tables.stored else None
            tolerance = max(TOLERANCE[dtype], TOLERANCE[storage], key=lambda t: t.share)
            agreement = check_file(staged, graph, axes, tolerance=tolerance, stored=stored, cases=cases)
        fixed = agreement.fixed if agreement is not None else {}
        if fixed:
            _fix(staged, {axis: axes.example[axis] for axis in fixed})
    seconds = time.perf_counter() - start
    dynamic = {axis: size for axis, size in axes.example.items() if axis not in fixed}
    return OnnxExport(
        Path(path), recipe, dtype, tuple(changed), agreement, dynamic, seconds, not_run, tables.kept | halves.kept
    )


def _check_storage(dtype: str, embeddings: str, storage: str) -> None:
    for name, value, choices in (("embeddings", embeddings, Embeddings), ("storage", storage, Storage)):
        if value not in get_args(choices):
            raise ValueError(f"{name}={value!r} is not one of {', '.join(get_args(choices))}")
        if dtype in _HALF and value != "float32":
            raise ValueError(f'{name}="{value}" is for dtype="float32" and "int8": all of a {dtype} file is {dtype}')


def _cannot_run(path: Path) -> str:
    """Why this machine's CPU provider does not open the file; "" where it does."""
    try:
        open_session(path)
    except ExportError as error:
        return f"not run: {error}"
    return ""


def _fix(path: Path, sizes: Mapping[str, int]) -> None:
    """Make axes of a written file static; weights beside it stay where they are."""
    proto = onnx.load(path, load_external_data=False)
    fix_axes(proto, sizes)
    onnx.save(proto, path)


def graph_of(source: Any) -> fx.GraphModule:
    """The traced graph behind ``source``. Raises TypeError where there is none."""
    graph = source if isinstance(source, fx.GraphModule) else getattr(source, "graph_module", None)
    if not isinstance(graph, fx.GraphModule):
        raise TypeError(
            f"cannot export a {type(source).__name__}: pass a graph from passes.trace(model, inputs), the result of "
            "passes.shrink, or a bpc.DenseModel"
        )
    trace_info(graph)  # raises for graphs of other origin
    return graph


def to_onnx(
    graph: fx.GraphModule,
    program: torch.export.ExportedProgram,
    axes: DynamicAxes,
    opset: int = OPSET,
    layout: Layout | None = None,
) -> ir.Model:
    """``torch.onnx.export`` of ``program``, with readable names for inputs, outputs and dynamic axes.

    Raises `ExportError` for an operator that ONNX does not have.
    """
    # The program was traced without gradients. The exporter runs it once more; with gradients attention under a learned
    # bias takes another kernel, of another memory layout, and views that were valid no longer are.
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own use of a deprecated class
        try:
            exported = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=opset,
                verbose=False,
                custom_translation_table=dict(translations(program)),
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise untranslated(error, graph) from error
    assert exported is not None
    model = exported.model
    ExpandRotaryCaches()(model)
    IndexTables()(model)
    SplitStacks()(model)
    names = input_names(graph) if layout is None else layout.inputs
    if len(model.graph.inputs) == len(names):
        _rename(model, model.graph.inputs, names)
    fields = output_names(program) if layout is None else layout.outputs
    if fields is not None and len(fields) == len(model.graph.outputs):
        _rename(model, model.graph.outputs, fields)
    name_axes(model, axes)
    if layout is not None:
        for value in model.graph.outputs:
            value.shape = ir.Shape(layout.shapes[str(value.name)])
    return model


def _rename(model: ir.Model, values: Sequence[ir.Value], names: Sequence[str]) -> None:
    """Give ``values`` their names; another value of the graph that has one of them yields it."""
    wanted = set(names)
    for node in model.graph:
        for output in node.outputs:
            if output.name in wanted:
                output.name = f"{output.name}_inner"
    for value, name in zip(values, names, strict=True):
        value.name = name


def _autotune(model: ir.Model, recipe: Recipe, target: Target, shapes: Sequence[tuple[int, int]]) -> Recipe:
    if target != "cpu":
        raise ValueError(f"autotune measures on the CPU provider; for target={target!r} give a recipe")
    from bpc.emit.autotune import tune

    tuning = tune(model, recipe, shapes=shapes)
    model.metadata_props[TUNING_KEY] = tuning.to_json()
    return tuning.recipe


def _quantized(model: ir.Model, calibration: Iterable[Mapping[str, Any]] | None) -> ir.Model:
    from bpc.emit.quantize import quantize  # loads the quantizers, which few exports need

    result = quantize(model, calibration)
    result.metadata_props.update(model.metadata_props)
    return result


def _describe(model: ir.Model, dtype: str, graph: fx.GraphModule, axes: DynamicAxes) -> None:
    """Record in the file what a benchmark needs: its arithmetic and its inputs' ranges."""
    properties = model.metadata_props
    properties[DTYPE_KEY] = dtype
    flops = flop_model(graph, axes)
    if flops is not None:
        properties[FLOPS_KEY] = flops.to_json()
    info = trace_info(graph)
    tensors = [t for t in pytree.tree_leaves((info.args, info.kwargs)) if isinstance(t, torch.Tensor)]
    ranges: dict[str, object] = dict(axes.example)
    for value, tensor in zip(model.graph.inputs, tensors, strict=True):
        if not tensor.is_floating_point():
            low, high = int(tensor.min()), int(tensor.max())
            if (low, high) == (0, 1):  # a mask: a benchmark hides nothing
                low = high = int(shown_value(tensor))
            ranges[str(value.name)] = (low, high)
    properties[INPUTS_KEY] = json.dumps(ranges)


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """The recipe a file was written with. Raises ValueError for files `export_onnx` did not write."""
    text = read_model(path).metadata_props.get(RECIPE_KEY)
    if text is None:
        raise ValueError(f"{path} carries no recipe ({RECIPE_KEY}); it was not written by bpc")
    return Recipe.from_json(text)
