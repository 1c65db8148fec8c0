"""Small helpers on an ``onnx_ir`` graph, shared by the passes of this package."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as common_passes

from bpc.errors import MendableError

MICROSOFT = "com.microsoft"


class OnnxFileError(MendableError):
    """A file that is no ONNX model."""


def read_model(path: str | os.PathLike[str]) -> ir.Model:
    """A file that a user gives. Raises `OnnxFileError` for what is no ONNX model, OSError where there is none."""
    try:
        model = ir.load(path)
    except OSError:
        raise
    except Exception as error:  # protobuf's own, and whatever a message of other content leads to
        raise OnnxFileError(f"{os.fspath(path)} is no ONNX file that can be read: {error}") from error
    if not len(model.graph):
        raise OnnxFileError(f"{os.fspath(path)} is no ONNX file that can be run: it has no operator; was it cut off?")
    return model


def constant(value: ir.Value | None) -> np.ndarray | None:
    """``value`` as an array where it is a constant, else None."""
    if value is None or value.const_value is None:
        return None
    return value.const_value.numpy()


def producer(value: ir.Value | None, op_type: str, domain: str = "") -> ir.Node | None:
    """The node that computes ``value``, if it is an ``op_type`` of ``domain``."""
    node = value.producer() if value is not None else None
    return node if node is not None and (node.op_type, node.domain) == (op_type, domain) else None


def only_user(value: ir.Value, op_type: str) -> ir.Node | None:
    """The one node that reads ``value`` (no graph output), if it is an ``op_type``."""
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    node = uses[0].node
    return node if node.op_type == op_type else None


def static_dim(value: ir.Value | None, axis: int) -> int | None:
    """Size of ``value`` along ``axis`` where it is known."""
    if value is None or value.shape is None or not -len(value.shape) <= axis < len(value.shape):
        return None
    size = value.shape[axis]
    return size if isinstance(size, int) else None


def same_dims(a: ir.Value, b: ir.Value, axes: Sequence[int]) -> bool:
    """Both shapes known, and equal (number or symbol) along ``axes``."""
    if a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
        return False
    return all(a.shape[i] == b.shape[i] and str(a.shape[i]) not in ("?", "None") for i in axes)


def add_initializer(graph: ir.Graph, name: str, content: np.ndarray | ir.TensorProtocol) -> ir.Value:
    """A constant of the graph; a number is added to ``name`` where it is taken. Lazy tensors stay lazy."""
    unique, count = name, 0
    while unique in graph.initializers:
        count += 1
        unique = f"{name}_{count}"
    tensor = ir.tensor(np.array(content, order="C")) if isinstance(content, np.ndarray) else content
    tensor.name = unique
    value = ir.Value(name=unique, const_value=tensor)
    value.dtype, value.shape = tensor.dtype, ir.Shape(tensor.shape.numpy())
    graph.register_initializer(value)
    return value


def insert(
    before: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    *,
    like: ir.Value | None = None,
    shape: Sequence[Any] | None = None,
    dtype: ir.DataType | None = None,
    domain: str = "",
    attributes: Mapping[str, Any] | None = None,
) -> ir.Value:
    """Insert a one-output node before ``before``; its output takes shape and dtype of ``like`` unless given."""
    inputs = list(inputs)
    while inputs and inputs[-1] is None:  # trailing optional inputs are left out, not passed empty
        inputs.pop()
    node = ir.node(op_type, inputs, attributes=attributes or {}, domain=domain)
    out = node.outputs[0]
    out.shape = ir.Shape(shape) if shape is not None else (like.shape if like is not None else None)
    dtype = dtype or (like.dtype if like is not None else None)
    if dtype is not None:
        out.dtype = dtype
    assert before.graph is not None
    before.graph.insert_before(before, node)
    if domain:
        before.graph.opset_imports.setdefault(domain, 1)
    return out


def replace(old: ir.Value, new: ir.Value) -> None:
    """Every use of ``old`` reads ``new``; a graph output keeps its name."""
    name, is_output = old.name, old.is_graph_output()
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    if is_output:
        old.name, new.name = f"{name}_replaced", name


def remove_dead(model: ir.Model) -> None:
    """Remove nodes and initializers nobody reads."""
    common_passes.RemoveUnusedNodesPass()(model)
