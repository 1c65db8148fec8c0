"""What kinds of operators there are, for analyses that only need to look through a graph, not to transform it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable

import torch
from torch import fx

aten = torch.ops.aten

# Rearranges, selects, repeats or casts; no arithmetic.
VIEWS = frozenset(
    {
        operator.getitem,
        aten.view.default,
        aten.reshape.default,
        aten._unsafe_view.default,
        aten.flatten.using_ints,
        aten.unflatten.int,
        aten.permute.default,
        aten.transpose.int,
        aten.t.default,
        aten.numpy_T.default,
        aten.movedim.int,
        aten.movedim.intlist,
        aten.squeeze.default,
        aten.squeeze.dim,
        aten.squeeze.dims,
        aten.unsqueeze.default,
        aten.expand.default,
        aten.expand_as.default,
        aten.repeat.default,
        aten.repeat_interleave.self_int,
        aten.slice.Tensor,
        aten.narrow.default,
        aten.select.int,
        aten.split.Tensor,
        aten.split.sizes,
        aten.split_with_sizes.default,
        aten.chunk.default,
        aten.tensor_split.sections,
        aten.unbind.int,
        aten.cat.default,
        aten.stack.default,
        aten.roll.default,
        aten.flip.default,
        aten.constant_pad_nd.default,
        aten.pad.default,
        aten.clone.default,
        aten.contiguous.default,
        aten.alias.default,
        aten.detach.default,
        aten.to.dtype,
        aten.to.dtype_layout,
        aten.to.device,
        aten.to.other,
        aten._to_copy.default,
        aten.type_as.default,
        aten.dropout.default,
        aten.native_dropout.default,
    }
)

NORMS = frozenset(
    {
        aten.layer_norm.default,
        aten.native_layer_norm.default,
        aten.rms_norm.default,
        aten.group_norm.default,
        aten._fused_rms_norm.default,
    }
)

REDUCTIONS = frozenset(
    {
        aten.mean.dim,
        aten.sum.dim_IntList,
        aten.amax.default,
        aten.var.correction,
        aten.linalg_vector_norm.default,
        aten.norm.ScalarOpt_dim,
    }
)

# Picks entries of its first input by the others; a view where those are constant.
LOOKUPS = frozenset({aten.index.Tensor, aten.index_select.default})

CONVOLUTIONS = frozenset({aten.conv1d.default, aten.conv2d.default, aten.conv3d.default, aten.convolution.default})

SUMS = frozenset({aten.add.Tensor, aten.sub.Tensor, aten.rsub.Tensor, aten.add.Scalar, aten.sub.Scalar})
PRODUCTS = frozenset({aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar, aten.neg.default})


def is_view(node: fx.Node) -> bool:
    """The node only rearranges, selects, repeats or casts its input."""
    return node.op == "call_function" and node.target in VIEWS


def is_pointwise(node: fx.Node) -> bool:
    """The node computes every output element from the input elements at the same place."""
    return isinstance(node.target, torch._ops.OpOverload) and torch.Tag.pointwise in node.target.tags


def is_norm(node: fx.Node) -> bool:
    """A fused normalisation over channels."""
    return node.op == "call_function" and node.target in NORMS


def is_reduction(node: fx.Node) -> bool:
    """A reduction such as written-out normalisations use."""
    return node.op == "call_function" and node.target in REDUCTIONS


def holds_tensor(node: fx.Node) -> bool:
    """The node's value is a tensor, or a list of tensors; a node without metadata counts as one."""
    value = node.meta.get("val")
    if isinstance(value, list | tuple):
        return any(isinstance(item, torch.Tensor) for item in value)
    return value is None or isinstance(value, torch.Tensor)


def tensor_inputs(node: fx.Node) -> list[fx.Node]:
    """The inputs that carry tensors (sizes computed with SymInts left out)."""
    return [n for n in node.all_input_nodes if holds_tensor(n)]


def shape(node: fx.Node) -> tuple[int | torch.SymInt, ...]:
    """The node's shape from its metadata; empty if it has none."""
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()


def ancestors(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """Every node that ``nodes`` are computed from."""
    return _closure(nodes, lambda n: n.all_input_nodes)


def descendants(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """Every node computed from ``nodes``."""
    return _closure(nodes, lambda n: n.users)


def _closure(nodes: Iterable[fx.Node], neighbours: Callable[[fx.Node], Iterable[fx.Node]]) -> set[fx.Node]:
    seen: set[fx.Node] = set()
    stack = list(nodes)
    while stack:
        for node in neighbours(stack.pop()):
            if node not in seen:
                seen.add(node)
                stack.append(node)
    return seen
