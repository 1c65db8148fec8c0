"""Half-precision graphs for torch: products and normalisations in bfloat16 or float16, the rest where autocast has it.

    product(x, W)  ->  product(x.to(half), W_half)      linear layers, matrix products, attention, convolutions
    norm(x, w, b)  ->  norm(x.to(half), w_half, b_half)  the kernels accumulate in float32 themselves
    f(x)           ->  f(x.to(float32))                  powers, means, sums: norms and softmax written out

Everything between follows torch's type promotion. Weights that only products, normalisations and lookups read are
stored in half precision; others (rotary frequencies, RMS weights) stay as they are. Outputs keep their dtype. What
torch.autocast does on every run is here done once: no weight is cast while the graph runs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from passes.ir.graph import copy_graph, get_attribute, set_numbers
from passes.ir.metadata import propagate_metadata

aten = torch.ops.aten

_PRODUCTS = frozenset(
    {
        aten.linear.default,
        aten.matmul.default,
        aten.mm.default,
        aten.bmm.default,
        aten.addmm.default,
        aten.baddbmm.default,
        aten.einsum.default,
        aten.scaled_dot_product_attention.default,
        aten.conv1d.default,
        aten.conv2d.default,
        aten.convolution.default,
    }
)
_NORMS = frozenset({aten.layer_norm.default, aten.group_norm.default, aten.native_layer_norm.default})
_LOOKUPS = frozenset({aten.embedding.default})
_FLOAT32 = frozenset(
    {
        aten.pow.Tensor_Scalar,
        aten.pow.Tensor_Tensor,
        aten.rsqrt.default,
        aten.reciprocal.default,
        aten.exp.default,
        aten.log.default,
        aten.mean.dim,
        aten.sum.dim_IntList,
        aten.var.correction,
        aten.cumsum.default,
        aten.softmax.int,
        aten._softmax.default,
        aten.log_softmax.int,
        aten.linalg_vector_norm.default,
        aten.sin.default,
        aten.cos.default,
    }
)


def convert_graph(graph_module: fx.GraphModule, dtype: torch.dtype) -> fx.GraphModule:
    """A copy of a traced float32 graph that computes in ``dtype`` (bfloat16 or float16). The original is not changed.

    Raises ValueError for another dtype.
    """
    if dtype not in (torch.bfloat16, torch.float16):
        raise ValueError(f"{dtype} is no half precision; choose torch.bfloat16 or torch.float16")
    result = copy_graph(graph_module)
    stored = _store_weights(result, dtype)
    casts = _Casts()
    for node in list(result.graph.nodes):
        if node.op == "output":
            casts.inputs_of(node, torch.float32)
        elif node.target in _PRODUCTS or node.target in _NORMS:
            casts.inputs_of(node, dtype, stored)
        elif node.target in _FLOAT32:
            casts.inputs_of(node, torch.float32)
    propagate_metadata(result)
    result.recompile()
    return result


def _store_weights(graph_module: fx.GraphModule, dtype: torch.dtype) -> frozenset[fx.Node]:
    """Narrow the tensors that only operators of known precision read; the nodes that yield them."""
    readers: dict[str, list[fx.Node]] = {}
    nodes: dict[str, list[fx.Node]] = {}
    for node in graph_module.graph.nodes:
        if node.op == "get_attr" and _is_float32(node):
            readers.setdefault(str(node.target), []).extend(node.users)
            nodes.setdefault(str(node.target), []).append(node)
    wanted = _PRODUCTS | _NORMS | _LOOKUPS
    stored: set[fx.Node] = set()
    for name, users in readers.items():
        if not all(user.target in wanted for user in users):
            continue
        set_numbers(graph_module, name, get_attribute(graph_module, name).to(dtype))
        stored.update(nodes[name])
    return frozenset(stored)


class _Casts:
    """Casts of values, one per value and dtype. Nodes are visited in order, so a cast precedes all who share it."""

    def __init__(self) -> None:
        self._made: dict[tuple[fx.Node, torch.dtype], fx.Node] = {}

    def inputs_of(self, node: fx.Node, dtype: torch.dtype, stored: frozenset[fx.Node] = frozenset()) -> None:
        """Read what was float32 in ``dtype``, but for ``stored``, which is (torch passes on what is already)."""

        def cast(value: fx.Node) -> fx.Node:
            if value in stored or not _is_float32(value):
                return value
            if (value, dtype) not in self._made:
                with node.graph.inserting_before(node):
                    self._made[value, dtype] = node.graph.call_function(aten.to.dtype, (value, dtype))
            return self._made[value, dtype]

        node.args = fx.node.map_arg(node.args, cast)
        node.kwargs = fx.node.map_arg(node.kwargs, cast)


def _is_float32(node: fx.Node) -> bool:
    value: Any = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32
