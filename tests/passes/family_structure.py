"""What the theory predicts, computed from masked weights alone: nothing here looks at a graph or imports `passes`.

A model's prunable structure is written down by hand as attention and feed-forward units (see `families`). From the
masked weights of a unit follows how many heads, head dims and FFN units stay, and thereby the shape of each weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

Parameters = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Part:
    """One logical linear layer: some output features of a weight matrix, and the same entries of its bias.

    A weight of more dims counts as a matrix: its first dim by all others.
    """

    weight: str
    bias: str | None = None
    start: int = 0
    size: int | None = None  # None: all output features
    out_dim: int = 0  # 1: stored transposed (Conv1D)

    def rows(self, parameters: Parameters) -> torch.Tensor:
        """The weight, shape (out features, in features)."""
        weight = parameters[self.weight].flatten(1)
        weight = weight if self.out_dim == 0 else weight.t()
        return weight[self.start :][: self.size]

    def shift(self, parameters: Parameters) -> torch.Tensor:
        """The bias, shape (out features,); zeros where there is none."""
        if self.bias is None or self.bias not in parameters:
            return torch.zeros(len(self.rows(parameters)))
        return parameters[self.bias][self.start :][: self.size]


@dataclass
class Removed:
    """How many indices go along each dim of each parameter, and which parameters go as a whole."""

    counts: dict[str, dict[int, int]] = field(default_factory=dict)
    gone: set[str | None] = field(default_factory=set)

    def add(self, name: str | None, dim: int, count: int) -> None:
        if name is not None and count:
            dims = self.counts.setdefault(name, {})
            dims[dim] = dims.get(dim, 0) + count

    def rows(self, part: Part, count: int, has_bias: bool) -> None:
        self.add(part.weight, part.out_dim, count)
        if has_bias:
            self.add(part.bias, 0, count)

    def columns(self, part: Part, count: int) -> None:
        self.add(part.weight, 1 - part.out_dim, count)


@dataclass(frozen=True)
class Attention:
    """Multi-head attention. ``rigid_keys``: q/k dims cannot go (per-dim norms). ``rotary``: dims d and d + E/2 rotate
    into each other and angles are shared by the heads, so a pair goes only when no head of the layer needs it.

    ``position_keys``: the key and query projections also read positions (DeBERTa), so a constant key is no mere shift.
    ``tables``: position bias tables with a heads dim, (name, dim); a table shared by several layers keeps the union.
    ``then``: parameters through which only the output goes (layer scale); they go when it is constant.
    """

    query: Part
    key: Part
    value: Part
    output: Part
    heads: int
    kv_heads: int
    rigid_keys: bool = False
    rotary: bool = False
    position_keys: bool = False
    tables: tuple[tuple[str, int], ...] = ()
    then: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.query, self.key, self.value, self.output

    def facts(self, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(live heads (H,), needed q/k dims (H, E), needed value dims (K, D))."""
        group = self.heads // self.kv_heads
        moving = _moves(self.value.rows(parameters)).view(self.kv_heads, -1)  # (K, D)
        read = (self.output.rows(parameters) != 0).any(0).view(self.heads, -1)  # (H, D)
        out = moving.repeat_interleave(group, 0) & read  # (H, D)
        live = out.any(1)
        value = (out.view(self.kv_heads, group, -1)).any(1)
        query, key = self.query.rows(parameters), self.key.rows(parameters)
        useful_q = _moves(query) | (self.query.shift(parameters) != 0)
        useful_k = _moves(key)
        if self.position_keys or self.rotary:
            useful_k = useful_k | (self.key.shift(parameters) != 0)
        useful_q, useful_k = useful_q.view(self.heads, -1), useful_k.view(self.kv_heads, -1)
        if self.rotary:
            useful_q, useful_k = (u | u.roll(u.shape[1] // 2, 1) for u in (useful_q, useful_k))
        return live, live.unsqueeze(1) & useful_q & useful_k.repeat_interleave(group, 0), value

    def predict(self, parameters: Parameters, removed: Removed) -> torch.Tensor:
        """Count what goes; return the heads that stay."""
        live, pairs, value = self.facts(parameters)
        live_kv = live.view(self.kv_heads, -1).any(1)
        key_dims, value_dims = pairs.shape[1], value.shape[1]
        if not live.any():
            keep_e = keep_d = 0
        else:
            per_head = pairs.any(0, keepdim=True) if self.rotary else pairs
            keep_e = key_dims if self.rigid_keys else max(1, int(per_head.sum(1).max()))
            keep_d = int(value.sum(1).max())
        heads, kv_heads = int(live.sum()), int(live_kv.sum())
        for part, before, after in (
            (self.query, self.heads * key_dims, heads * keep_e),
            (self.key, self.kv_heads * key_dims, kv_heads * keep_e),
            (self.value, self.kv_heads * value_dims, kv_heads * keep_d),
        ):
            removed.rows(part, before - after, part.bias in parameters)
        removed.columns(self.output, self.heads * value_dims - heads * keep_d)
        if not live.any():
            removed.gone.update({*self.then, self.output.bias})
        return live


@dataclass(frozen=True)
class RelativeAttention(Attention):
    """XLNet's: every weight is (features, heads, dims), so all heads keep the same dims. A second key, ``relative``,
    reads positions; the query gets ``biases``, of shape (heads, dims): one for each key.
    """

    relative: Part | None = None
    biases: tuple[str, ...] = ()

    def predict(self, parameters: Parameters, removed: Removed) -> torch.Tensor:
        live, _, value = self.facts(parameters)
        assert self.relative is not None
        moving = [_moves(p.rows(parameters)).view(self.heads, -1) for p in (self.query, self.key, self.relative)]
        pairs = torch.zeros_like(moving[0])
        for bias, key in zip(self.biases, moving[1:], strict=True):
            pairs |= live.unsqueeze(1) & (moving[0] | (parameters[bias] != 0)) & key
        dead = self.heads - int(live.sum())
        gone_keys, gone_values = (int((~needed.any(0)).sum()) for needed in (pairs, value))
        for part in (self.query, self.key, self.relative, self.value, self.output):
            removed.add(part.weight, 1, dead)
            removed.add(part.weight, 2, gone_values if part in (self.value, self.output) else gone_keys)
        for bias in self.biases:
            removed.add(bias, 0, dead)
            removed.add(bias, 1, gone_keys)
        return live


@dataclass(frozen=True)
class FeedForward:
    """down(act(up x)), or down(act(gate x) * up x) with act(0) = 0, or down(act(depthwise(up x))).

    A depthwise convolution pads with zeros: only a unit that is constant 0 is constant behind it.
    """

    up: Part
    down: Part
    gate: Part | None = None
    then: tuple[str, ...] = ()
    depthwise: Part | None = None

    @property
    def parts(self) -> tuple[Part, ...]:
        return tuple(p for p in (self.up, self.gate, self.down) if p is not None)

    def live(self, parameters: Parameters) -> torch.Tensor:
        """Units that are not constant and are read, shape (units,)."""
        moves = _moves(self.up.rows(parameters))
        if self.gate is not None:
            zero_up = ~moves & (self.up.shift(parameters) == 0)
            moves_gate = _moves(self.gate.rows(parameters))
            zero_gate = ~moves_gate & (self.gate.shift(parameters) == 0)
            moves = (moves | moves_gate) & ~zero_up & ~zero_gate
        if self.depthwise is not None:
            moves = (moves | (self.up.shift(parameters) != 0)) & _moves(self.depthwise.rows(parameters))
        return moves & (self.down.rows(parameters) != 0).any(0)

    def predict(self, parameters: Parameters, removed: Removed) -> None:
        gone = int((~self.live(parameters)).sum())
        removed.rows(self.up, gone, self.up.bias in parameters)
        if self.gate is not None:
            removed.rows(self.gate, gone, self.gate.bias in parameters)
        if self.depthwise is not None:
            removed.rows(self.depthwise, gone, self.depthwise.bias in parameters)
        removed.columns(self.down, gone)
        if gone == len(self.live(parameters)):
            removed.gone.update({*self.then, self.down.bias})


def _moves(rows: torch.Tensor) -> torch.Tensor:
    """Output features that depend on the input, shape (out features,)."""
    return (rows != 0).any(1)


def predict_shapes(
    parameters: Parameters, attention: tuple[Attention, ...], feed_forward: tuple[FeedForward, ...]
) -> dict[str, tuple[int, ...] | None]:
    """{parameter: its shape in the small model}; None where it is gone because its sublayer became a constant."""
    removed = Removed()
    tables: dict[tuple[str, int], torch.Tensor] = {}
    for unit in attention:
        live = unit.predict(parameters, removed)
        for table in unit.tables:
            tables[table] = tables.get(table, torch.zeros_like(live)) | live
    for (name, dim), live in tables.items():
        removed.add(name, dim, int((~live).sum()))
    for feed in feed_forward:
        feed.predict(parameters, removed)
    shapes: dict[str, tuple[int, ...] | None] = {}
    for name, tensor in parameters.items():
        counts = removed.counts.get(name, {})
        shape = tuple(size - counts.get(dim, 0) for dim, size in enumerate(tensor.shape))
        assert all(size >= 0 for size in shape), f"{name}: {tuple(tensor.shape)} -> {shape}"
        shapes[name] = None if 0 in shape or name in removed.gone else shape
    return shapes
