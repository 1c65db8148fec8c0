"""The transfer rules, one file per operator family, and the one literal table that assigns them.

An operator that is in no table and not pointwise gets `UNKNOWN`: nothing constant, everything live, all axes pinned.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from passes.ir.sizes import is_parameter, tensor_inputs
from passes.ops import attention, conv, glu, linear, local, lookup, matmul, pointwise, reductions, structural
from passes.ops.linear_form import linear_form
from passes.ops.rule import Rule

aten = torch.ops.aten

RULES: Mapping[Any, Rule] = {
    **dict.fromkeys(
        (
            aten.view.default,
            aten.reshape.default,
            aten._unsafe_view.default,
            aten.flatten.using_ints,
            aten.unflatten.int,
            aten.unsqueeze.default,
            aten.squeeze.default,
            aten.squeeze.dim,
            aten.squeeze.dims,
        ),
        structural.RESHAPE,
    ),
    **dict.fromkeys(
        (
            aten.permute.default,
            aten.transpose.int,
            aten.t.default,
            aten.numpy_T.default,
            aten.mT.default,
            aten.movedim.int,
            aten.movedim.intlist,
        ),
        structural.PERMUTE,
    ),
    **dict.fromkeys((aten.expand.default, aten.expand_as.default, aten.broadcast_to.default), structural.EXPAND),
    aten.slice.Tensor: structural.SLICE,
    aten.select.int: structural.SELECT,
    aten.cat.default: structural.CAT,
    aten.flip.default: structural.FLIP,
    aten.roll.default: structural.ROLL,
    aten.repeat_interleave.self_int: structural.REPEAT_INTERLEAVE,
    aten.scaled_dot_product_attention.default: attention.RULE,
    **dict.fromkeys(conv.CONVOLUTIONS, conv.RULE),
    aten.embedding.default: lookup.EMBEDDING,
    aten.index_select.default: lookup.INDEX_SELECT,
    aten.gather.default: lookup.GATHER,
    aten.index.Tensor: lookup.INDEX,
    **dict.fromkeys(
        (
            aten.zeros.default,
            aten.ones.default,
            aten.full.default,
            aten.new_zeros.default,
            aten.new_ones.default,
            aten.new_full.default,
            aten.scalar_tensor.default,
            aten.arange.default,
            aten.arange.start,
            aten.arange.start_step,
        ),
        lookup.CREATION,
    ),
    **dict.fromkeys(
        (aten.zeros_like.default, aten.ones_like.default, aten.full_like.default, aten.empty_like.default),
        lookup.CREATION_LIKE,
    ),
    **dict.fromkeys(
        (aten.softmax.int, aten._softmax.default, aten.log_softmax.int, aten._safe_softmax.default), reductions.SOFTMAX
    ),
    aten.cumsum.default: reductions.CUMULATIVE,
    aten.layer_norm.default: reductions.LAYER_NORM,
    aten.rms_norm.default: reductions.RMS_NORM,
    aten.group_norm.default: reductions.GROUP_NORM,
    aten.batch_norm.default: reductions.BATCH_NORM,
    **dict.fromkeys(
        (
            aten.mean.dim,
            aten.mean.default,
            aten.sum.dim_IntList,
            aten.sum.default,
            aten.var.correction,
            aten.var.dim,
            aten.amax.default,
            aten.amin.default,
            aten.any.dim,
            aten.all.dim,
            aten.argmax.default,
            aten.argmin.default,
            aten.logsumexp.default,
        ),
        reductions.REDUCTION,
    ),
    aten.linalg_vector_norm.default: reductions.VECTOR_NORM,
    aten.diff.default: local.DIFF,
    **dict.fromkeys((aten.constant_pad_nd.default, aten.pad.default), local.PAD),
    **dict.fromkeys(
        (aten.adaptive_avg_pool1d.default, aten.avg_pool1d.default, aten.max_pool1d.default), local.POOL_1D
    ),
    **dict.fromkeys(
        (
            aten.adaptive_avg_pool2d.default,
            aten._adaptive_avg_pool2d.default,
            aten.avg_pool2d.default,
            aten.max_pool2d.default,
        ),
        local.POOL_2D,
    ),
    **dict.fromkeys(
        (
            aten.upsample_bilinear2d.vec,
            aten.upsample_bilinear2d.default,
            aten.upsample_bicubic2d.vec,
            aten.upsample_nearest2d.vec,
        ),
        local.UPSAMPLE_2D,
    ),
    aten.repeat.default: structural.REPEAT,
    aten.glu.default: glu.RULE,
}

PRODUCTS = frozenset({aten.matmul.default, aten.bmm.default, aten.mm.default})


def rule_for(node: fx.Node) -> Rule:
    """The transfer rule of a call_function node that yields one tensor."""
    if linear_form(node) is not None:
        return linear.RULE
    if node.target in RULES:
        return RULES[node.target]
    if node.target in PRODUCTS and matmul.is_product(node):
        return matmul.RULE
    return pointwise.RULE if pointwise.is_pointwise(node) else lookup.UNKNOWN


def find_tables(graph: fx.Graph) -> frozenset[fx.Node]:
    """Values that no linear, convolution or attention computes: parameters, inputs, lookups, pointwise of those."""
    tables: set[fx.Node] = set()
    for node in graph.nodes:
        if is_parameter(node) or node.op == "placeholder":
            tables.add(node)
        elif node.op == "call_function":
            from_tables = all(n in tables for n in tensor_inputs(node))
            rotary = node.target in PRODUCTS and linear_form(node) is None  # an outer product of positions and rates
            if from_tables and (rotary or (_is_tensor(node) and rule_for(node).tabular)):
                tables.add(node)
    return frozenset(tables)


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), torch.Tensor)


def unknown_operators(graph: fx.Graph) -> list[str]:
    """Names of the operators that got the conservative default, for the report."""
    nodes = [n for n in graph.nodes if n.op == "call_function" and _is_tensor(n)]
    return sorted({str(n.target) for n in nodes if rule_for(n) is lookup.UNKNOWN})
