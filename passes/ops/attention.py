"""Fused attention: out = softmax(q kᵀ · s + mask) v, with q (…, H, L, E), k (…, K, S, E), v (…, K, S, D).

constant  out[h, d] iff v[h, d] is one number over all keys (rows of softmax sum to 1)
live      v[h, d] iff out[h, d]; the pair q[h, e], k[h, e] iff some out[h, ·] is, unless one of them is constant 0 or k
          is constant over the keys (softmax ignores a shift of a row)
ties      E of q and k, D of v and out, heads of all; with grouped queries H = (K, group)
"""

from __future__ import annotations

import torch
from torch import fx

from passes.ir.sizes import is_static, same_sizes, shape_of, tensor_of
from passes.ops.arguments import argument, arguments, set_argument, tensor_argument
from passes.ops.facts import Fact, any_over, collapse_fact, fact_shape, make_fact, nothing_constant, reduce_to
from passes.ops.rule import Facts, Keeps, Kind, Live, Rule
from passes.ops.ties import Repeat, Ties


def operands(node: fx.Node) -> tuple[fx.Node, fx.Node, fx.Node, fx.Node | None]:
    """(query, key, value, mask)."""
    given = arguments(node)
    return given["query"], given["key"], given["value"], tensor_argument(node, "attn_mask")


def group_size(node: fx.Node) -> int:
    """Query heads per key/value head."""
    q, k, _, _ = operands(node)
    if len(shape_of(q)) < 4:
        return 1
    return int(shape_of(q)[-3]) // int(shape_of(k)[-3])


def _to_heads(fact: torch.Tensor, group: int) -> torch.Tensor:
    return fact if group == 1 else fact.repeat_interleave(group, -3)


def _to_groups(fact: torch.Tensor, group: int) -> torch.Tensor:
    return fact if group == 1 else fact.unflatten(-3, (-1, group)).any(-3)


def constant(node: fx.Node, facts: Facts) -> Fact:
    fake = tensor_of(node)
    assert fake is not None
    v = facts.fact(operands(node)[2])
    if not bool(v.const.any()):
        return nothing_constant(fact_shape(node), fake.dtype)
    kept = collapse_fact(v, [v.const.dim() - 2])
    group, shape = group_size(node), fact_shape(node)
    return make_fact(_to_heads(kept.const, group).expand(shape), _to_heads(kept.value, group).expand(shape))


def live(node: fx.Node, live_out: torch.Tensor, facts: Facts) -> Live:
    q, k, v, mask = operands(node)
    fq, fk, fv = facts.fact(q), facts.fact(k), facts.fact(v)
    group = group_size(node)
    shifted = collapse_fact(fk, [fk.const.dim() - 2]).const  # (..., K, 1, E): constant over the keys
    live_rows = any_over(live_out, [live_out.dim() - 1])  # (..., H, L, 1)
    reads_q = live_rows & ~fq.zero & ~_to_heads(shifted, group)
    reads_k = _to_groups(any_over(live_rows & ~fq.zero, [live_out.dim() - 2]), group) & ~fk.zero & ~shifted
    reads_v = _to_groups(any_over(live_out, [live_out.dim() - 2]), group)
    result: dict[fx.Node, torch.Tensor] = {}
    for operand, reads, fact in ((q, reads_q, fq), (k, reads_k, fk), (v, reads_v, fv)):
        spread = reduce_to(reads, fact.const.shape).expand(fact.const.shape)
        result[operand] = result.get(operand, torch.zeros((), dtype=torch.bool)) | spread
    if mask is not None:
        result[mask] = reduce_to(live_rows, fact_shape(mask)).expand(fact_shape(mask))
    return result


def ties(node: fx.Node, ties: Ties, facts: Facts) -> None:
    q, k, v, mask = operands(node)
    group = group_size(node)
    for a, b in ((q, k), (v, node)):
        ties.same(ties.axis(a, -1), ties.axis(b, -1))
    ties.same(ties.axis(q, -2), ties.axis(node, -2))
    ties.pin(k, [-2], "the keys a softmax runs over")
    ties.pin(v, [-2], "the keys a softmax runs over")
    for dim in range(-len(shape_of(q)), -2):
        ties.same(ties.axis(q, dim), ties.axis(node, dim))
        if dim == -3 and group > 1:
            _tie_groups(node, k, ties, group)
            _tie_groups(node, v, ties, group)
        else:
            ties.same(ties.axis(q, dim), ties.axis(k, dim))
            ties.same(ties.axis(q, dim), ties.axis(v, dim))
    if mask is not None:
        ties.pin(mask, [-1], "the keys a softmax runs over")
        ties.cover(node, mask, range(-len(shape_of(mask)), -1))


def _tie_groups(node: fx.Node, kv: fx.Node, ties: Ties, group: int) -> None:
    heads, kv_heads = ties.axis(node, -3), ties.axis(kv, -3)
    if heads is not None and kv_heads is not None:
        ties.repeat(Repeat(kv_heads, heads, group, node, kv, kv_heads.dim))


def resize(node: fx.Node, keeps: Keeps) -> None:
    """The default scale is 1/sqrt(E): say it before E shrinks."""
    if argument(node, "scale") is None:
        set_argument(node, "scale", float(shape_of(operands(node)[0])[-1]) ** -0.5)


def _applies(node: fx.Node) -> bool:
    """No active dropout, which draws other numbers for every head when one of them goes, and heads that agree."""
    return argument(node, "dropout_p") == 0.0 and _heads_agree(node)


def _heads_agree(node: fx.Node) -> bool:
    """Key and value have one head count, which divides the query's; the dims in front agree, and nothing broadcasts."""
    q, k, v = (shape_of(n) for n in operands(node)[:3])
    if len(q) != len(k) or len(k) != len(v) or any(not is_static(s[-1]) for s in (q, k, v)):
        return False
    if len(q) < 4:
        return same_sizes(q[:-2], k[:-2]) and same_sizes(k[:-2], v[:-2])
    heads, key_heads = q[-3], k[-3]
    grouped = is_static(heads) and is_static(key_heads) and heads % key_heads == 0
    return same_sizes(k[:-2], v[:-2]) and same_sizes(q[:-3], k[:-3]) and (grouped or same_sizes((heads,), (key_heads,)))


RULE = Rule("attention", constant, live, ties, resize, Kind.ATTENTION, applies=_applies)

RULES = {torch.ops.aten.scaled_dot_product_attention.default: RULE}
