"""Names for the inputs, outputs and dynamic axes of an exported file.

torch.export names sizes s18, s41, ...; users of the file read ``batch`` and ``sequence``. Two sizes get one name where
the model itself ties them: torch.export leaves some apart (an attention mask may be longer than the tokens it masks)
that no caller can choose freely. Whether they are tied is found by running the graph with one of them changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import onnx_ir as ir
import torch
from torch import fx
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from passes.ir.info import trace_info


@dataclass(frozen=True)
class DynamicAxes:
    """The dynamic sizes of a graph's inputs: {flat input index: {axis: name}}, and each name's size in the example."""

    names: dict[int, dict[int, str]]
    example: dict[str, int]
    symbols: dict[str, str]  # torch.export's symbol -> name


class AxesError(ValueError):
    """A size that a layout names is none of the graph's, or the other way round; the message says which."""


@dataclass(frozen=True)
class Layout:
    """What is settled of a file before it is written: names, in the order of its flat tensors, and what to check it on.

    ``axes``: {input: {axis: name}}; a size that is no axis of them is part of the model. ``shapes``: {output: its
    shape, in sizes and names}. ``cases``: (description, flat inputs); on each, the file has to compute what the graph
    does.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    axes: Mapping[str, Mapping[int, str]]
    shapes: Mapping[str, tuple[int | str, ...]]
    cases: Sequence[tuple[str, list[object]]]


def settled_axes(graph: fx.GraphModule, program: torch.export.ExportedProgram, layout: Layout) -> DynamicAxes:
    """The axes that a layout names. Raises `AxesError` where the trace fixed one of them, or left another size open."""
    nodes = {n.name: n for n in program.graph.nodes}
    inputs = [s.arg.name for s in program.graph_signature.input_specs if s.kind is InputKind.USER_INPUT]
    tensors = [(nodes[name], leaf) for name, leaf in zip(inputs, _leaves(graph), strict=True)]
    pairs = [(node, leaf) for node, leaf in tensors if isinstance(leaf, torch.Tensor)]
    names: dict[int, dict[int, str]] = {}
    example: dict[str, int] = {}
    symbols: dict[str, str] = {}
    for index, (title, (node, leaf)) in enumerate(zip(layout.inputs, pairs, strict=True)):
        names[index] = dict(layout.axes[title])
        for axis, size in enumerate(node.meta["val"].shape):
            name = names[index].get(axis)
            if isinstance(size, torch.SymInt) != (name is not None):
                is_fixed = f"is fixed at {leaf.shape[axis]} by the trace" if name else "is no size of the model"
                raise AxesError(f"{title}: dim {axis} ({name or size}) {is_fixed}")
            if name is not None:
                symbols[str(size)] = name
                example[name] = leaf.shape[axis]
    return DynamicAxes(names, example, symbols)


def dynamic_axes(graph: fx.GraphModule, program: torch.export.ExportedProgram) -> DynamicAxes:
    """Name the dynamic axes of ``graph`` (a traced graph) as exported in ``program``."""
    nodes = {n.name: n for n in program.graph.nodes}
    inputs = [s.arg.name for s in program.graph_signature.input_specs if s.kind is InputKind.USER_INPUT]
    placeholders = [nodes[name] for name in inputs]  # constants (use_cache=False) among them
    leaves = _leaves(graph)
    places: dict[str, list[tuple[int, int]]] = {}
    sizes: dict[str, int] = {}
    for index, (node, leaf) in enumerate(zip(placeholders, leaves, strict=True)):
        if not isinstance(leaf, torch.Tensor):
            continue
        for axis, size in enumerate(node.meta["val"].shape):
            if isinstance(size, torch.SymInt):
                places.setdefault(str(size), []).append((index, axis))
                sizes[str(size)] = leaf.shape[axis]
    groups = _tie(graph, places, sizes)
    names: dict[int, dict[int, str]] = {}
    symbols, example = {}, {}
    taken: set[str] = set()
    for group in groups:
        spots = [spot for symbol in group for spot in places[symbol]]
        name = _name(min(spots, key=lambda s: (s[1], s[0])), placeholders, taken)
        taken.add(name)
        example[name] = sizes[group[0]]
        symbols.update(dict.fromkeys(group, name))
        for index, axis in spots:
            names.setdefault(index, {})[axis] = name
    return DynamicAxes(names, example, symbols)


def _leaves(graph: fx.GraphModule) -> list[Any]:
    info = trace_info(graph)
    return pytree.tree_leaves((info.args, info.kwargs))


def _name(spot: tuple[int, int], placeholders: list[fx.Node], taken: set[str]) -> str:
    index, axis = spot
    common = {0: "batch", 1: "sequence"}.get(axis)
    return common if common is not None and common not in taken else f"{placeholders[index].name}_{axis}"


def _tie(graph: fx.GraphModule, places: dict[str, list[tuple[int, int]]], sizes: dict[str, int]) -> list[list[str]]:
    """Group symbols of one axis position and example size, unless the graph runs with them apart."""
    groups: list[list[str]] = []
    for symbol, spots in places.items():
        axis = spots[0][1]
        for group in groups:
            other = group[0]
            if places[other][0][1] == axis and sizes[other] == sizes[symbol] and not _free(graph, spots, axis):
                group.append(symbol)
                break
        else:
            groups.append([symbol])
    return groups


def _free(graph: fx.GraphModule, spots: list[tuple[int, int]], axis: int) -> bool:
    """Whether the graph runs with these inputs one longer, and with them one shorter, than the rest."""
    info = trace_info(graph)
    for change in (1, -1):
        leaves, spec = pytree.tree_flatten((info.args, info.kwargs))
        for index, at in spots:
            leaf = leaves[index]
            size = leaf.shape[at] + change
            if size < 2:
                return False
            leaves[index] = leaf.index_select(at, torch.arange(size) % leaf.shape[at])
        args, kwargs = pytree.tree_unflatten(leaves, spec)
        try:
            with torch.no_grad():
                graph(*args, **kwargs)
        except (RuntimeError, IndexError, AssertionError):
            return False
    return True


def input_names(graph: fx.GraphModule) -> list[str]:
    """A name per flat tensor input: the keyword's, with the path inside nested arguments appended."""
    info = trace_info(graph)
    keywords = [(_path_name(path), leaf) for path, leaf in pytree.tree_flatten_with_path(info.kwargs)[0]]
    placeholders = [n.name for n in graph.graph.nodes if n.op == "placeholder"]
    positional = list(zip(placeholders, pytree.tree_leaves(info.args), strict=False))
    return [name for name, leaf in (*positional, *keywords) if isinstance(leaf, torch.Tensor)]


def output_names(program: torch.export.ExportedProgram) -> list[str] | None:
    """The field names of the model's output (start_logits, ...), or None where it has none."""
    spec = program.call_spec.out_spec
    if spec is None:
        return None
    tree = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    if not isinstance(tree, Mapping):
        return None
    names = [_path_name(path) for path, _ in pytree.tree_flatten_with_path(dict(tree))[0]]
    return names if len(set(names)) == len(names) else None


def _path_name(path: tuple[Any, ...]) -> str:
    parts = [getattr(entry, "key", getattr(entry, "idx", getattr(entry, "name", None))) for entry in path]
    return "_".join(str(part) for part in parts)


def name_axes(model: ir.Model, axes: DynamicAxes) -> None:
    """Write the names of ``axes`` in place of torch.export's symbols, in every shape of the ONNX model."""
    values = list(model.graph.inputs)
    for node in model.graph.all_nodes():
        values.extend(node.outputs)
    for value in values:
        if value.shape is None:
            continue
        value.shape = ir.Shape(
            [axes.symbols.get(d.value or "", d.value) if isinstance(d, ir.SymbolicDim) else d for d in value.shape]
        )


def fix_axes(model: onnx.ModelProto, sizes: Mapping[str, int]) -> None:
    """Write the sizes of these axes in place of their names: ONNX Runtime then refuses inputs of any other size."""
    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
            elif set(re.findall(r"\w+", dim.dim_param)) & set(sizes):
                dim.ClearField("dim_param")  # an expression of such an axis


def resized_inputs(graph: fx.GraphModule, axes: DynamicAxes, sizes: Mapping[str, int]) -> list[torch.Tensor]:
    """The example inputs, flat, with each named axis at the given size: entries repeated or cut off.

    A 0/1 mask keeps at least its first column. Raises ValueError for a name `dynamic_axes` did not give.
    """
    unknown = set(sizes) - set(axes.example)
    if unknown:
        raise ValueError(f"no dynamic axis {', '.join(sorted(unknown))}; this graph has {', '.join(axes.example)}")
    tensors = []
    for index, leaf in enumerate(_leaves(graph)):
        if not isinstance(leaf, torch.Tensor):
            continue
        for axis, name in axes.names.get(index, {}).items():
            size = sizes.get(name, leaf.shape[axis])
            leaf = leaf.index_select(axis, torch.arange(size) % leaf.shape[axis])
        tensors.append(leaf)
    return tensors
