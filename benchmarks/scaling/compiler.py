"""What the compiler costs: trace, analysis, shrink, verification, export; and planning on the meta device."""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path
from typing import Any

import torch

import bpc
import passes
from benchmarks.scaling.clock import Clock
from benchmarks.scaling.models import Shape, sizes
from passes.frontend.reference import masked_reference
from passes.masks import resolve_masks
from passes.verify import verify_equivalent


def compile_case(shape: Shape, repeats: int) -> dict[str, Any]:
    """Every stage, with weights: `shrink` without its verification, which is a stage of its own; one export."""
    torch.manual_seed(0)
    clock = Clock()
    model = shape.build()
    masks = shape.masks(model)
    for turn in range(repeats):
        with clock.stage("trace"):
            graph = passes.trace(model, shape.example())
        with clock.stage("analysis"):
            plan = passes.plan_shrink(graph, masks)
        del plan
        with clock.stage("shrink"):
            result = passes.shrink(graph, masks, verify=False)
        with clock.stage("verify"):
            masked = masked_reference(graph, resolve_masks(graph, masks))
            verify_equivalent(masked, result.graph_module, traced=graph)
        del masked
        gc.collect()
        if turn == 0:
            with tempfile.TemporaryDirectory() as folder, clock.stage("export"):
                bpc.export_onnx(result.graph_module, Path(folder) / "small.onnx")
        kept = result.report.parameters_after
        nodes = len(graph.graph.nodes)
        del result, graph
        gc.collect()
    stages = clock.figures()
    del stages["export"]["peak bytes"]  # benchmarks/export.py measures it, with nothing else around
    return {**sizes(model), "kept": kept, "nodes": nodes, "stages": stages}


def plan_case(shape: Shape, repeats: int) -> dict[str, Any]:
    """Trace and analysis of a model in bfloat16 that has shapes and no numbers; its masks are real."""
    clock = Clock()
    with torch.device("meta"):
        model = shape.build().to(torch.bfloat16)
    masks = shape.masks(model)
    for _ in range(repeats):
        with clock.stage("trace"):
            graph = passes.trace(model, shape.example(device="meta"))
        with clock.stage("analysis"):
            plan = passes.plan_shrink(graph, masks)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    return {
        **sizes(model),
        "kept": sum(torch.Size(plan.small_shape(name, shape)).numel() for name, shape in shapes.items()),
        "nodes": len(graph.graph.nodes),
        "masked": sum(mask.numel() for mask in masks.values()),
        "stages": clock.figures(),
    }


def warm() -> None:
    """Imports and first calls, which a user pays once a process."""
    for family in ("bert", "llama"):
        tiny = Shape(family, 1, 256)
        model = tiny.build()
        result = passes.shrink(passes.trace(model, tiny.example()), tiny.masks(model))
    with tempfile.TemporaryDirectory() as folder:
        bpc.export_onnx(result.graph_module, Path(folder) / "tiny.onnx")
    with torch.device("meta"):
        model = tiny.build()
    passes.plan_shrink(passes.trace(model, tiny.example(device="meta")), tiny.masks(model))
