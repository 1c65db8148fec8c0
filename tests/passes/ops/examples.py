"""An example call of every operator of the table, for brute force: a new operator is one line in EXAMPLES.

Operands are given by shape: B and T are data dimensions (their sizes come from the inputs), numbers are channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

aten = torch.ops.aten
grouped_mm = torch.ops.transformers.grouped_mm_fallback.default
B, T = -1, -2


@dataclass(frozen=True)
class Operand:
    """A tensor operand. ``below``: integers in [0, below) if given; ``yes``: booleans."""

    shape: tuple[int, ...]
    below: int = 0
    yes: bool = False
    positive: bool = False


@dataclass(frozen=True)
class Example:
    """``call(*operands)`` reaches the operator."""

    call: Callable[..., Any]
    operands: tuple[Operand, ...]


def ex(call: Callable[..., Any], *operands: tuple[int, ...] | Operand) -> Example:
    return Example(call, tuple(o if isinstance(o, Operand) else Operand(o) for o in operands))


def index(below: int, *shape: int) -> Operand:
    return Operand(shape, below=below)


def mask(*shape: int) -> Operand:
    return Operand(shape, yes=True)


def positive(*shape: int) -> Operand:
    return Operand(shape, positive=True)


X, XT, HEADS, ROWS = (B, 4, 6), (B, T, 6), (B, 2, T, 4), (B, 6)
IMAGE, VOLUME = (B, 4, 6, 2), (B, 3, 2, 4, 2)

VIEWS: Mapping[Any, list[Example]] = {
    aten.view.default: [
        ex(lambda z: aten.view(z, [z.shape[0], 2, 12]), X),
        ex(lambda z: aten.view(z, [-1, 6]), X),
        ex(lambda z: aten.view(z, [z.shape[0], z.shape[1], 2, 3]), XT),
    ],
    aten.reshape.default: [ex(lambda z: aten.reshape(z, [z.shape[0], 24]), X)],
    aten._unsafe_view.default: [ex(lambda z: aten._unsafe_view(z, [z.shape[0], 24]), X)],
    aten.flatten.using_ints: [ex(lambda z: aten.flatten(z, 1), X), ex(lambda z: aten.flatten(z, 0, 1), X)],
    aten.unflatten.int: [ex(lambda z: aten.unflatten(z, -1, [2, 3]), X)],
    aten.unsqueeze.default: [ex(lambda z: aten.unsqueeze(z, 1), X)],
    aten.squeeze.default: [ex(lambda z: aten.squeeze(z), (B, 1, 4, 6))],
    aten.squeeze.dim: [ex(lambda z: aten.squeeze(z, 1), (B, 1, 6))],
    aten.squeeze.dims: [ex(lambda z: aten.squeeze(z, [1, 3]), (B, 1, 6, 1))],
    aten.permute.default: [ex(lambda z: aten.permute(z, [2, 0, 1]), X)],
    aten.transpose.int: [ex(lambda z: aten.transpose(z, -1, 1), X)],
    aten.t.default: [ex(lambda z: aten.t(z), (4, 6)), ex(lambda z: aten.t(z), ROWS)],
    aten.numpy_T.default: [ex(lambda z: aten.numpy_T(z), (4, 6))],
    aten.mT.default: [ex(lambda z: aten.mT(z), X)],
    aten.movedim.int: [ex(lambda z: aten.movedim(z, -1, 0), X)],
    aten.movedim.intlist: [ex(lambda z: aten.movedim(z, [0, 1], [2, 0]), X)],
    aten.expand.default: [
        ex(lambda z: aten.expand(z, [-1, 4, 6]), (B, 1, 6)),
        ex(lambda z: aten.expand(z, [3, -1, -1, -1]), X),
    ],
    aten.broadcast_to.default: [ex(lambda z: aten.broadcast_to(z, [z.shape[0], 4, 6]), (B, 4, 1))],
    aten.expand_as.default: [ex(lambda z, y: aten.expand_as(z, y) + y, (B, 4, 1), X)],
    aten.slice.Tensor: [
        ex(lambda z: aten.slice(z, 2, 1, 4), X),
        ex(lambda z: aten.slice(z, 1, -2), X),
        ex(lambda z: aten.slice(z, 2, 0, 6, 2), X),
        ex(lambda z: aten.slice(z, 1, 1), XT),
    ],
    aten.select.int: [ex(lambda z: aten.select(z, 1, -1), X), ex(lambda z: aten.select(z, 1, 0), XT)],
    aten.cat.default: [
        ex(lambda a, b: aten.cat([a, b], 2), X, (B, 4, 3)),
        ex(lambda a, b: aten.cat([a, b, a]), X, X),
        ex(lambda a, b: aten.cat([a, b], -2), XT, XT),
    ],
    aten.flip.default: [ex(lambda z: aten.flip(z, [-1, 0]), X)],
    aten.roll.default: [
        ex(lambda z: aten.roll(z, [1, -2], [2, 1]), X),
        ex(lambda z: aten.roll(z, [1]), X),
        ex(lambda z: aten.roll(z, [1], [1]), XT),
    ],
    aten.repeat.default: [ex(lambda z: aten.repeat(z, [1, 2, 3]), X), ex(lambda z: aten.repeat(z, [2, 1, 1, 1]), X)],
    aten.repeat_interleave.self_int: [
        ex(lambda z: aten.repeat_interleave(z, 2, -1), X),
        ex(lambda z: aten.repeat_interleave(z, 2), (6,)),
        ex(lambda z: aten.repeat_interleave(z, 3, 0), X),
    ],
    aten.unbind.int: [ex(lambda z: aten.unbind(z, 1)[1] - aten.unbind(z, 1)[3], X)],
    aten.split.Tensor: [ex(lambda z: torch.cat(aten.split(z, 4, -1)[::-1], -1), X)],
    aten.split_with_sizes.default: [ex(lambda z: aten.split_with_sizes(z, [2, 3, 1], -1)[1], X)],
    aten.chunk.default: [ex(lambda z: aten.chunk(z, 2, 1)[1], X)],
    aten.stack.default: [ex(lambda a, b: aten.stack([a, b], 1), X, X)],
    aten.diff.default: [ex(lambda z: aten.diff(z), X), ex(lambda z: aten.diff(z, 1, 1), XT)],
    aten.constant_pad_nd.default: [
        ex(lambda z: aten.constant_pad_nd(z, [1, 2, 0, 1]), X),
        ex(lambda z: aten.constant_pad_nd(z, [0, 0, 1, 0], 0.5), XT),
        ex(lambda z: aten.constant_pad_nd(z, [-1, 1], 0.5), X),
    ],
    aten.pad.default: [
        ex(lambda z: aten.pad(z, [1, 1], "constant", 0.5), X),
        ex(lambda z: aten.pad(z, [1, 1], "reflect"), X),
        ex(lambda z: aten.pad(z, [1, 0], "replicate"), X),
    ],
}

POINTWISE: Mapping[Any, list[Example]] = {
    aten.to.dtype: [ex(lambda z: aten.to(z, torch.float32), X), ex(lambda z: aten.to(z, torch.int64), X)],
    aten.to.device: [ex(lambda z: aten.to(z, torch.device("cpu"), torch.float64), X)],
    aten.to.dtype_layout: [ex(lambda z: aten.to.dtype_layout(z, dtype=torch.float32), X)],
    aten.to.other: [ex(lambda z, y: aten.to(z, y), X, index(5, B, 4, 6))],
    aten._to_copy.default: [ex(lambda z: aten._to_copy(z, dtype=torch.int32), X)],
    aten.type_as.default: [ex(lambda z, y: aten.type_as(z, y), X, index(5, B, 4, 6))],
    aten.contiguous.default: [ex(lambda z: aten.contiguous(z), X)],
    aten.clone.default: [ex(lambda z: aten.clone(z), X)],
    aten.alias.default: [ex(lambda z: aten.alias(z), X)],
    aten.detach.default: [ex(lambda z: aten.detach(z), X)],
    aten.dropout.default: [ex(lambda z: aten.dropout(z, 0.5, False), X)],
    aten.copy.default: [ex(lambda a, b: aten.copy(a, b), X, X), ex(lambda a, b: aten.copy(a, b), X, (4, 1))],
    aten.fill.Tensor: [ex(lambda a, b: aten.fill(a, b), X, ())],
    aten.add.Tensor: [ex(lambda a, b: aten.add(a, b), X, (4, 1)), ex(lambda a, b: aten.add(a, b, alpha=-2), X, X)],
    aten.sub.Tensor: [ex(lambda a, b: aten.sub(a, b), (B, 1, 6), (4, 1))],
    aten.rsub.Tensor: [ex(lambda a, b: aten.rsub(a, b, alpha=2), X, X)],
    aten.rsub.Scalar: [ex(lambda a: aten.rsub(a, 1.0, 2), X)],
    aten.add.Scalar: [ex(lambda a: aten.add.Scalar(a, 1.0), X)],
    aten.sub.Scalar: [ex(lambda a: aten.sub.Scalar(a, 0.5), X)],
    aten.mul.Tensor: [
        ex(lambda a, b: aten.mul(a, b), X, X),
        ex(lambda a, b: aten.mul(a, b), (B, 4, 1), (6,)),
        ex(lambda a: aten.mul(a, a), X),
    ],
    aten.mul.Scalar: [ex(lambda a: aten.mul.Scalar(a, 0.0), X), ex(lambda a: aten.mul.Scalar(a, 2.0), X)],
    aten.div.Tensor: [ex(lambda a, b: aten.div(a, b), X, positive(B, 4, 6))],
    aten.div.Scalar: [ex(lambda a: aten.div.Scalar(a, 2.0), X)],
    aten.neg.default: [ex(lambda a: aten.neg(a), X)],
    aten.logical_and.default: [ex(lambda a, b: aten.logical_and(a, b), X, mask(4, 6))],
    aten.logical_not.default: [ex(lambda a: aten.logical_not(a), X)],
    aten.logical_or.default: [ex(lambda a, b: aten.logical_or(a, b), X, X)],
    aten.__and__.Tensor: [ex(lambda a, b: aten.__and__.Tensor(a, b), mask(*X), mask(*X))],
    aten.__or__.Tensor: [ex(lambda a, b: aten.__or__.Tensor(a, b), mask(*X), mask(*X))],
    aten.__and__.Scalar: [ex(lambda a: aten.__and__.Scalar(a, 1), index(4, *X))],
    aten.__or__.Scalar: [ex(lambda a: aten.__or__.Scalar(a, 1), index(4, *X))],
    aten.bitwise_and.Tensor: [ex(lambda a, b: aten.bitwise_and(a, b), index(4, *X), index(4, *X))],
    aten.log_sigmoid.default: [ex(lambda a: aten.log_sigmoid(a), X)],
    aten.hardswish.default: [ex(lambda a: aten.hardswish(a), X)],
    aten.gelu.default: [ex(lambda a: aten.gelu(a), X)],
    aten.masked_fill.Tensor: [ex(lambda a, m, v: aten.masked_fill(a, m, v), X, mask(4, 6), ())],
    aten.masked_fill.Scalar: [ex(lambda a, m: aten.masked_fill(a, m, 0.5), X, mask(*X))],
    aten.where.self: [
        ex(lambda c, a, b: aten.where(c, a, b), mask(*X), X, (6,)),
        ex(lambda c, a: aten.where(c, a, a), mask(B, 4, 1), X),
    ],
    aten.where.ScalarOther: [ex(lambda c, a: aten.where(c, a, 0.5), mask(*X), X)],
    aten.where.ScalarSelf: [ex(lambda c, a: aten.where(c, 0.5, a), mask(*X), X)],
    aten.where.Scalar: [ex(lambda c: aten.where(c, 1.0, 0.5), mask(*X))],
    aten.lerp.Tensor: [ex(lambda a, b, w: aten.lerp(a, b, w), X, X, (4, 1))],
    aten.addcmul.default: [ex(lambda a, b, c: aten.addcmul(a, b, c, value=0.5), X, X, X)],
    aten.clamp.Tensor: [ex(lambda a, b, c: aten.clamp(a, b, c), X, X, X)],
}

PRODUCTS: Mapping[Any, list[Example]] = {
    aten.linear.default: [
        ex(lambda x, w, b: aten.linear(x, w, b), XT, (4, 6), (4,)),
        ex(lambda x, w: aten.linear(x, w), X, (4, 6)),
    ],
    aten.addmm.default: [ex(lambda b, x, w: aten.addmm(b, x, w), (4,), ROWS, (6, 4))],
    aten.matmul.default: [
        ex(lambda a, b: aten.matmul(a, b), X, (B, 6, 3)),
        ex(lambda a, b: aten.matmul(a, b), HEADS, (B, 2, 4, 3)),
        ex(lambda a, b: aten.matmul(a, b), XT, (6, 4)),
        ex(lambda a, b: aten.matmul(a, b.mT), XT, XT),
        ex(lambda a, b: aten.matmul(a, b), X, (6,)),
        ex(lambda a, b: aten.matmul(a.softmax(-1), b), X, (B, 6, 3)),
        ex(lambda a, b: aten.matmul(a, b).softmax(-1), X, (B, 6, 3)),
        ex(lambda a: aten.matmul(a.mT, a), XT),
    ],
    aten.bmm.default: [ex(lambda a, b: aten.bmm(a, b), X, (B, 6, 3)), ex(lambda a, b: aten.bmm(a.mT, b), XT, XT)],
    aten.mm.default: [ex(lambda a, b: aten.mm(a, b), ROWS, (6, 4)), ex(lambda a, b: aten.mm(a.t(), b), ROWS, ROWS)],
    aten.baddbmm.default: [
        ex(lambda c, a, b: aten.baddbmm(c, a, b, beta=0.5, alpha=2), (B, 4, 3), X, (B, 6, 3)),
        ex(lambda c, a, b: aten.baddbmm(c, a, b), (B, 1, 3), X, (B, 6, 3)),
    ],
    grouped_mm: [
        ex(lambda x, w, ends: grouped_mm(x, w, ends.sort().values), (B, 16), (3, 16, 24), index(3, 3)),
        ex(lambda x, w, ends: grouped_mm(x, w.mT, ends.sort().values), (B, 16), (3, 24, 16), index(3, 3)),
    ],
    aten.scaled_dot_product_attention.default: [
        ex(lambda q, k, v: aten.scaled_dot_product_attention(q, k, v), HEADS, HEADS, (B, 2, T, 3)),
        ex(lambda q, k, v, m: aten.scaled_dot_product_attention(q, k, v, m), HEADS, HEADS, HEADS, (B, 2, 1, T)),
        ex(lambda q, k, v, m: aten.scaled_dot_product_attention(q, k, v, m), HEADS, HEADS, HEADS, (2, 1, 1)),
        ex(lambda q, k, v: aten.scaled_dot_product_attention(q, k, v, None, 0.0, True), HEADS, HEADS, HEADS),
        ex(
            lambda q, k, v: aten.scaled_dot_product_attention(q, k, v, enable_gqa=True),
            (B, 4, T, 3),
            (B, 2, T, 3),
            (B, 2, T, 5),
        ),
        ex(lambda q, k, v: aten.scaled_dot_product_attention(q, k, v), (B, T, 4), (B, T, 4), XT),
        ex(lambda q, k, v: aten.scaled_dot_product_attention(q, k, v), HEADS, (B, 1, T, 4), HEADS),
    ],
    aten.conv1d.default: [
        ex(lambda x, w, b: aten.conv1d(x, w, b, [1], [1]), X, (3, 4, 3), (3,)),
        ex(lambda x, w: aten.conv1d(x, w), (B, 4, T), (3, 4, 1)),
        ex(lambda x, w, b: aten.conv1d(x, w, b, [1], [0], [1], 2), X, (6, 2, 3), (6,)),
        ex(lambda x, w: aten.conv1d(x, w, None, [1], [1], [1], 4), X, (4, 1, 3)),
        ex(lambda x, w, b: aten.conv1d(x, w, b), (4, 6), (3, 4, 3), (3,)),
    ],
    aten.conv2d.default: [ex(lambda x, w, b: aten.conv2d(x, w, b, [1, 1], [1, 1]), IMAGE, (3, 4, 3, 3), (3,))],
    aten.conv3d.default: [ex(lambda x, w: aten.conv3d(x, w), VOLUME, (3, 3, 1, 2, 1))],
    aten.conv1d.padding: [ex(lambda x, w, b: aten.conv1d(x, w, b, [1], "same"), X, (3, 4, 3), (3,))],
    aten.conv2d.padding: [ex(lambda x, w: aten.conv2d(x, w, None, [1, 1], "valid"), IMAGE, (3, 4, 3, 1))],
    aten.conv3d.padding: [ex(lambda x, w: aten.conv3d(x, w, None, [1, 1, 1], "same"), VOLUME, (3, 3, 1, 2, 1))],
    aten.glu.default: [ex(lambda z: aten.glu(z, -1), X), ex(lambda z: aten.glu(z, 1), X)],
}

MIXING: Mapping[Any, list[Example]] = {
    aten.layer_norm.default: [
        ex(lambda x, w, b: aten.layer_norm(x, [6], w, b), X, (6,), (6,)),
        ex(lambda x, w: aten.layer_norm(x, [4, 6], w), X, (4, 6)),
        ex(lambda x, b: aten.layer_norm(x, [6], None, b), X, (6,)),
    ],
    aten.rms_norm.default: [ex(lambda x, w: aten.rms_norm(x, [6], w), X, (6,)), ex(lambda x: aten.rms_norm(x, [6]), X)],
    aten._fused_rms_norm.default: [ex(lambda x, w: aten._fused_rms_norm(x, [6], w, 1e-6)[0], X, (6,))],
    aten.group_norm.default: [
        ex(lambda x, w, b: aten.group_norm(x, 2, w, b), X, (4,), (4,)),
        ex(lambda x: aten.group_norm(x, 2), X),
    ],
    aten.batch_norm.default: [
        ex(
            lambda x, w, b, m, v: aten.batch_norm(x, w, b, m, v, False, 0.1, 1e-5, False),
            X,
            (4,),
            (4,),
            (4,),
            positive(4),
        ),
        ex(lambda x, w: aten.batch_norm(x, w, None, None, None, True, 0.1, 1e-5, False), X, (4,)),
    ],
    aten.mean.dim: [ex(lambda z: aten.mean(z, [1]), X), ex(lambda z: aten.mean(z, [-1, 1], True), XT)],
    aten.mean.default: [ex(lambda z: aten.mean(z), X)],
    aten.sum.dim_IntList: [ex(lambda z: aten.sum(z, [2], True), X), ex(lambda z: aten.sum(z, [1]), XT)],
    aten.sum.default: [ex(lambda z: aten.sum(z), X)],
    aten.var.correction: [ex(lambda z: aten.var(z, [2], correction=0, keepdim=True), X)],
    aten.var.dim: [ex(lambda z: aten.var(z, [1], True, False), X)],
    aten.std.correction: [
        ex(lambda z: aten.std(z, [2], correction=0, keepdim=True), X),
        ex(lambda z: aten.std(z, correction=1), X),
    ],
    aten.std.dim: [ex(lambda z: aten.std(z, [1], True, False), X), ex(lambda z: aten.std(z, [1]), XT)],
    aten.unfold.default: [
        ex(lambda z: aten.unfold(z, 2, 3, 2), X),
        ex(lambda z: aten.unfold(z, 1, 1, 2), X),  # a step beyond the window: entries that nobody reads
        ex(lambda z: aten.unfold(z, 1, 2, 1), XT),
    ],
    aten.amax.default: [ex(lambda z: aten.amax(z, [-1]), X), ex(lambda z: aten.amax(z, [1], True), XT)],
    aten.amin.default: [ex(lambda z: aten.amin(z, [1, 2]), X)],
    aten.any.dim: [ex(lambda z: aten.any(z, 2), mask(*X))],
    aten.all.dim: [ex(lambda z: aten.all(z, 1, True), mask(*X))],
    aten.argmax.default: [ex(lambda z: aten.argmax(z, -1), X), ex(lambda z: aten.argmax(z, 1, True), XT)],
    aten.argmin.default: [ex(lambda z: aten.argmin(z, 1), X)],
    aten.logsumexp.default: [ex(lambda z: aten.logsumexp(z, [2]), X)],
    aten.linalg_vector_norm.default: [
        ex(lambda z: aten.linalg_vector_norm(z, 2, [-1], True), X),
        ex(lambda z: aten.linalg_vector_norm(z, 2, [1]), XT),
    ],
    aten.norm.ScalarOpt_dim: [ex(lambda z: aten.norm(z, 2, [1]), X)],
    aten.softmax.int: [ex(lambda z: aten.softmax(z, -1), X), ex(lambda z: aten.softmax(z, 1), X)],
    aten._softmax.default: [ex(lambda z: aten._softmax(z, 1, False), X)],
    aten._safe_softmax.default: [ex(lambda z: aten._safe_softmax(z, -1), X)],
    aten.log_softmax.int: [ex(lambda z: aten.log_softmax(z, -1), X)],
    aten.cumsum.default: [ex(lambda z: aten.cumsum(z, 2), X), ex(lambda z: aten.cumsum(z, 1), XT)],
    aten.adaptive_avg_pool1d.default: [ex(lambda z: aten.adaptive_avg_pool1d(z, [3]), X)],
    aten.avg_pool1d.default: [ex(lambda z: aten.avg_pool1d(z, [2]), X)],
    aten.max_pool1d.default: [ex(lambda z: aten.max_pool1d(z, [3], [1], [1]), X)],
    aten.adaptive_avg_pool2d.default: [ex(lambda z: aten.adaptive_avg_pool2d(z, [3, 1]), IMAGE)],
    aten._adaptive_avg_pool2d.default: [ex(lambda z: aten._adaptive_avg_pool2d(z, [3, 1]), IMAGE)],
    aten.avg_pool2d.default: [ex(lambda z: aten.avg_pool2d(z, [2, 1]), IMAGE)],
    aten.max_pool2d.default: [ex(lambda z: aten.max_pool2d(z, [2, 2]), IMAGE)],
    aten.upsample_bilinear2d.vec: [ex(lambda z: aten.upsample_bilinear2d(z, None, False, [2.0, 1.0]), IMAGE)],
    aten.upsample_bilinear2d.default: [ex(lambda z: aten.upsample_bilinear2d(z, [4, 3], True), IMAGE)],
    aten.upsample_bicubic2d.vec: [ex(lambda z: aten.upsample_bicubic2d(z, None, False, [2.0, 1.0]), IMAGE)],
    aten.upsample_nearest2d.vec: [ex(lambda z: aten.upsample_nearest2d(z, None, [2.0, 1.0]), IMAGE)],
}

LOOKUPS: Mapping[Any, list[Example]] = {
    aten.embedding.default: [
        ex(lambda t, i: aten.embedding(t, i), (6, 4), index(6, B, T)),
        ex(lambda t, i: aten.embedding(t, i), (6, 4), index(6, B, 3)),
    ],
    aten.index_select.default: [
        ex(lambda x, i: aten.index_select(x, -1, i), X, index(6, 3)),
        ex(lambda x, i: aten.index_select(x, 1, i), X, index(4, 4)),
    ],
    aten.gather.default: [
        ex(lambda x, i: aten.gather(x, 1, i), X, index(4, B, 4, 6)),
        ex(lambda x, i: aten.gather(x, -1, i), X, index(6, B, 3, 2)),
        ex(lambda x, i: aten.gather(x, 1, i.expand(-1, 1, 6)), X, index(4, B, 1, 1)),
    ],
    aten.index.Tensor: [
        ex(lambda x, i: aten.index(x, [i]), (6, 4), index(6, B)),
        ex(lambda x, i: aten.index(x, [None, i]), X, index(4, 3)),
        ex(lambda x, i, j: aten.index(x, [None, i, j]), X, index(4, 3), index(6, 3)),
        ex(lambda x, i: aten.index(x, [None, None, i]), X, index(6, 2, 2)),
    ],
}


def like(make: Callable[..., Any]) -> list[Example]:
    return [ex(lambda z: make(z) * 0.5 + z, X)]


CREATIONS: Mapping[Any, list[Example]] = {
    aten.zeros.default: like(lambda z: aten.zeros([4, 6], dtype=z.dtype)),
    aten.ones.default: like(lambda z: aten.ones([z.shape[0], 4, 6], dtype=z.dtype)),
    aten.full.default: like(lambda z: aten.full([4, 1], 0.5, dtype=z.dtype)),
    aten.new_zeros.default: like(lambda z: aten.new_zeros(z, [4, 6])),
    aten.new_ones.default: like(lambda z: aten.new_ones(z, [4, 6])),
    aten.new_full.default: like(lambda z: aten.new_full(z, [6], 0.5)),
    aten.scalar_tensor.default: like(lambda z: aten.scalar_tensor(0.5, dtype=z.dtype)),
    aten.arange.default: like(lambda z: aten.arange(6, dtype=z.dtype)),
    aten.arange.start: like(lambda z: aten.arange(1, 7, dtype=z.dtype)),
    aten.arange.start_step: like(lambda z: aten.arange(0, 12, 2, dtype=z.dtype)),
    aten.zeros_like.default: like(lambda z: aten.zeros_like(z)),
    aten.ones_like.default: like(lambda z: aten.ones_like(z)),
    aten.full_like.default: like(lambda z: aten.full_like(z, 0.5)),
    aten.empty_like.default: like(lambda z: aten.fill(aten.empty_like(z), 0.5)),
}

EXAMPLES: Mapping[Any, list[Example]] = {**VIEWS, **POINTWISE, **PRODUCTS, **MIXING, **LOOKUPS, **CREATIONS}
