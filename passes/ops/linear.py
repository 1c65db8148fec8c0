"""Products with a parameter matrix: y = x Wᵀ + b (linear, addmm, mm, matmul with a 2-D parameter).

constant  y_i iff every j with W_ij ≠ 0 has x_j constant; the number is b_i + Σ_j W_ij c_j
live      x_j iff some live y_i has W_ij ≠ 0 and x_j does not fold into the bias
ties      rows of W with y, columns with x: sharing a parameter thereby becomes a union over its uses
"""

from __future__ import annotations

import torch
from torch import fx

from passes.ir.sizes import shape_of, tensor_of
from passes.ir.tensors import pieces, without_copies
from passes.ops.facts import Fact, as_rows, fact_shape, make_fact, nothing, nothing_constant, some
from passes.ops.linear_form import LinearForm, linear_form
from passes.ops.rule import Facts, Kind, Live, Rule
from passes.ops.ties import Ties


def _form(node: fx.Node) -> LinearForm:
    form = linear_form(node)
    assert form is not None
    return form


def nonzero_rows(form: LinearForm, facts: Facts) -> torch.Tensor:
    """Which weights are not 0, shape (out_features, in_features). Weights that cannot be read count as dense."""
    pattern = facts.pattern(form.weight_name)
    if pattern is None:
        out_features, in_features = shape_of(form.node)[-1], shape_of(form.input)[-1]
        return torch.ones((), dtype=torch.bool).expand(out_features, in_features)
    return form.rows(pattern)


def reaches(channels: torch.Tensor, pattern: torch.Tensor) -> torch.Tensor:
    """(..., rows) bool, (rows, columns) bool -> (..., columns): some chosen row is not 0 there."""
    rows = as_rows(channels)
    if rows.shape[0] > 1:
        return channels.float() @ pattern.float() > 0
    return _reached(rows[0], pattern).expand(*channels.shape[:-1], -1)


def _reached(rows: torch.Tensor, pattern: torch.Tensor) -> torch.Tensor:
    """`reaches` of one row of choices; a product of bytes is some times as fast as a choice of rows."""
    columns = pattern.shape[1]
    if pattern.numel() == 0:
        return torch.zeros(columns, dtype=torch.bool)
    pattern = without_copies(pattern)
    if len(pattern) < len(rows):
        rows = rows.any(0, keepdim=True)
    cells, chosen = pattern.view(torch.uint8), rows.view(torch.uint8)[:, None]
    found = torch.zeros(pattern.shape[1], dtype=torch.uint8)
    if pattern.stride(0) < pattern.stride(1):  # transposed
        for part in pieces(pattern.t()):
            found[part] = (cells[:, part] * chosen).amax(0)
    else:
        for part in pieces(pattern):
            torch.maximum(found, (cells[part] * chosen[part]).amax(0), out=found)
    return found.view(torch.bool).expand(columns)


def constant(node: fx.Node, facts: Facts) -> Fact:
    form, shape, fake = _form(node), fact_shape(node), tensor_of(node)
    assert fake is not None
    nonzero = nonzero_rows(form, facts)
    x = facts.fact(form.input)
    if not bool(x.const.any()):
        const = ~some(nonzero, 1)
        if not bool(const.any()):
            return nothing_constant(shape, fake.dtype)
        return make_fact(const.expand(shape), _bias(form, facts, fake.dtype).expand(shape))
    fixed = x.const & torch.isfinite(x.value.nan_to_num())
    const = ~reaches(~fixed, nonzero.t())
    if not bool(const.any()):
        return nothing_constant(shape, fake.dtype)
    value = _bias(form, facts, torch.float64) + _shift(form, facts, fixed, x.value)
    return make_fact(const.expand(shape), value.to(fake.dtype).expand(shape))


def _shift(form: LinearForm, facts: Facts, fixed: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """What constant input channels add to the output, (..., out_features); NaN where a weight is unknown."""
    held = torch.where(fixed, numbers, torch.zeros((), dtype=numbers.dtype)).double()
    columns = some(as_rows(held != 0), 0)
    if not bool(columns.any()):
        return torch.zeros((), dtype=torch.float64)
    weight = facts.weight(form.weight_name)
    if weight is None:
        return torch.full((), torch.nan, dtype=torch.float64)
    return held[..., columns] @ form.rows(weight)[:, columns].double().t()


def _bias(form: LinearForm, facts: Facts, dtype: torch.dtype) -> torch.Tensor:
    """(out_features,), or one number for all."""
    if form.bias_name is None:
        return torch.zeros((), dtype=dtype)
    bias = facts.weight(form.bias_name)
    return torch.full((), torch.nan, dtype=dtype) if bias is None else form.seen(bias).to(dtype)


def live(node: fx.Node, live_out: torch.Tensor, facts: Facts) -> Live:
    form = _form(node)
    nonzero = nonzero_rows(form, facts)
    folds = facts.folds(form)
    # A constant that cannot fold (the weight serves several uses, or an embedding too) has to stay right everywhere.
    own, numbers = facts.folded_constants(form)
    adds_nothing = folds | (own & (numbers == 0))
    needed = own & ~adds_nothing
    if bool(needed.any()):
        needed = needed & some(nonzero, 0)
    reads = reaches(live_out, nonzero) & ~adds_nothing | needed
    # The weight's rows live with the result, its columns with the input, and the bias with the result: see `ties`.
    apart = {operand: nothing(operand) for operand in (form.weight_operand, form.bias_operand) if operand is not None}
    return apart | {form.input: reads.expand(fact_shape(form.input))}


def ties(node: fx.Node, ties: Ties, facts: Facts) -> None:
    form = _form(node)
    last = len(shape_of(node)) - 1
    for dim in range(last):
        ties.same(ties.axis(node, dim), ties.axis(form.input, dim))
    ties.same(ties.axis(node, last), ties.axis(form.weight_operand, form.out_dim))
    ties.same(ties.axis(form.input, last), ties.axis(form.weight_operand, form.in_dim))
    if form.bias_operand is not None:
        ties.same(ties.axis(node, last), ties.axis(form.bias_operand, 0))


RULE = Rule("linear", constant, live, ties, kind=Kind.LINEAR)
