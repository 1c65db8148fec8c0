"""Where the heads of an attention lie in its weights, told by running it: which dims of which operand go together.

A guess from the roles (one operand a weight, or several side by side, or head by head) counts only if the model answers
as before with its heads in another, random basis. So rotary positions and normalised queries, which tell the dims of a
head apart, are found out as well as a wrong guess.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx

from bpc.oneshot.batches import Batch
from bpc.oneshot.divergence import outputs
from bpc.oneshot.stream import Original
from bpc.oneshot.sublayers import Sublayer
from passes.rewrite.turn_heads import HeadFeatures, Turn, TurnHeads
from passes.structure.role import Part
from passes.structure.roles import LinearRole, Roles
from passes.structure.weight_uses import weight_uses

_SAME = 1e-3  # of the outputs' spread: rounding of another basis stays far below, another function far above
_EXAMPLES = 2


@dataclass(frozen=True, eq=False)
class Heads:
    """The operands of one attention whose heads may be written in another basis; None where they may not.

    ``query`` and ``output`` have as many heads as there are queries, ``key`` and ``value`` as many as are shared.
    """

    query: HeadFeatures | None
    key: HeadFeatures | None
    value: HeadFeatures | None
    output: HeadFeatures | None

    def turns(self, values: Tensor | None, keys: Tensor | None) -> list[Turn]:
        """The turns of v by ``values`` and of q by ``keys`` (shared heads, dims, dims), and what undoes them."""
        found = []
        if values is not None and self.value is not None and self.output is not None:
            undone = torch.linalg.inv(values)
            found += [Turn(self.value, values), Turn(self.output, _each(undone, self.output))]
        if keys is not None and self.query is not None and self.key is not None:
            undone = torch.linalg.inv(keys).transpose(1, 2)
            found += [Turn(self.query, self.of_queries(keys)), Turn(self.key, undone)]
        return found

    def of_queries(self, matrices: Tensor) -> Tensor:
        """One matrix for every head of queries from those of shared heads."""
        assert self.query is not None
        return _each(matrices, self.query)


def _each(matrices: Tensor, features: HeadFeatures) -> Tensor:
    """One matrix for every head from those of shared heads."""
    return matrices.repeat_interleave(len(features.index) // len(matrices), 0)


def find_heads(graph: fx.GraphModule, sublayers: Sequence[Sublayer], roles: Roles, batch: Batch) -> dict[str, Heads]:
    """{attention: its operands}, of those where at least one pair may be narrowed."""
    uses = weight_uses(graph)
    counts: dict[str, int] = {}
    for use in uses.values():
        counts[use.weight] = counts.get(use.weight, 0) + 1
    check = _Check(graph, batch)
    found = {}
    for sublayer in sublayers:
        if sublayer.unit != "head" or any(counts[weight] > 1 for weight in sublayer.parts):
            continue
        heads = next(filter(None, map(check.checked, _guesses([roles[w] for w in sublayer.parts]))), None)
        if heads is not None:
            found[sublayer.name] = heads
    return found


def likely_heads(graph: fx.GraphModule, sublayers: Sequence[Sublayer], roles: Roles, batch: Batch) -> dict[str, Heads]:
    """{attention: where its heads lie}: as `find_heads`, and by the first guess where heads may not be turned.

    Good for counting dims, whose number does not depend on a basis.
    """
    known = find_heads(graph, sublayers, roles, batch)
    found = {}
    for sublayer in sublayers:
        guess = next(_guesses([roles[w] for w in sublayer.parts]), None) if sublayer.unit == "head" else None
        if guess is not None:
            sure = known.get(sublayer.name, guess)
            values = sure if sure.value is not None else guess
            keys = sure if sure.key is not None else guess
            found[sublayer.name] = Heads(keys.query, keys.key, values.value, values.output)
    return found


def _guesses(block: Sequence[LinearRole]) -> Iterator[Heads]:
    """Layouts that the roles of a block allow."""
    output = next((r for r in block if r.role.leaves), None)
    if output is None or output.heads is None or output.head_dim is None:
        return
    places: dict[Part, list[HeadFeatures]] = {Part.OUTPUT: [_features(output, _rows(0, output.heads, output.head_dim))]}
    for role in block:
        if role.role.leaves or role.role.part is None or role.heads is None or role.head_dim is None:
            continue
        members = [part for part in (Part.QUERY, Part.KEY, Part.VALUE) if part in role.role.part.members]
        for layout in _layouts(members, role.heads, role.out_features // role.head_dim, role.head_dim):
            for part, index in layout.items():
                places.setdefault(part, []).append(_features(role, index))
    for number in range(max(map(len, places.values()))):
        chosen = {part: options[min(number, len(options) - 1)] for part, options in places.items()}
        yield Heads(*(chosen.get(part) for part in (Part.QUERY, Part.KEY, Part.VALUE, Part.OUTPUT)))


def _layouts(members: Sequence[Part], heads: int, rows: int, dims: int) -> Iterator[dict[Part, Tensor]]:
    """Rows (heads, dims) of each operand in a weight of ``rows`` heads in all: side by side, then group by group."""
    if len(members) == 1:
        yield {members[0]: _rows(0, rows, dims)}
        return
    queries = heads if Part.QUERY in members else 0
    others = len(members) - bool(queries)
    if (rows - queries) % others:
        return
    shared = (rows - queries) // others
    number = {part: queries if part is Part.QUERY else shared for part in members}
    side, start = {}, 0
    for part in members:
        side[part] = _rows(start, number[part], dims)
        start += number[part]
    yield side
    if queries % shared == 0:
        grouped = torch.arange(rows).view(shared, -1)
        each, group = queries // shared, {}
        for column, part in enumerate(members):
            begin, width = (0, each) if part is Part.QUERY else (column + max(each - 1, 0), 1)
            index = grouped[:, begin : begin + width].flatten()
            group[part] = index[:, None] * dims + torch.arange(dims)
        yield group


def _rows(start: int, heads: int, dims: int) -> Tensor:
    return (torch.arange(heads * dims) + start * dims).view(heads, dims)


def _features(role: LinearRole, index: Tensor) -> HeadFeatures:
    side = "in" if role.role.leaves else "out"
    return HeadFeatures(role.weight, index, side, role.bias, role.out_dim)  # type: ignore[arg-type]


class _Check:
    """Whether a model answers as before with heads in a random basis."""

    def __init__(self, graph: fx.GraphModule, batch: Batch) -> None:
        self.original = Original.of(graph)
        self.batch = {k: v[:_EXAMPLES] if isinstance(v, Tensor) and v.dim() else v for k, v in batch.items()}
        self.wanted = self._answer({})

    def checked(self, guess: Heads) -> Heads | None:
        """The guess without the pair that it is wrong about; None if it is wrong about both."""
        values = guess if self._same(guess, "value", "output") else replace(guess, value=None, output=None)
        keys = values if self._same(guess, "query", "key") else replace(values, query=None, key=None)
        return None if keys.value is None and keys.key is None else keys

    def _same(self, guess: Heads, *pair: str) -> bool:
        features = [getattr(guess, name) for name in pair]
        if None in features or features[0].dims != features[1].dims:
            return False
        shared = guess.value if "value" in pair else guess.key
        every = guess.output if "value" in pair else guess.query
        assert shared is not None
        assert every is not None
        if len(every.index) % len(shared.index):
            return False
        matrices = _random(len(shared.index), shared.dims)
        turns = guess.turns(matrices, None) if "value" in pair else guess.turns(None, matrices)
        given = self._answer(TurnHeads(turns).numbers(self.original.weights))
        return all(
            bool((a - b).abs().max() <= _SAME * (a.std() if a.numel() > 1 else a.abs()).clamp_min(1e-12))
            for a, b in zip(self.wanted, given, strict=True)
        )

    def _answer(self, instead: Mapping[str, Tensor]) -> list[Tensor]:
        runner = self.original.runner(instead)
        return [value.double() for _, value in outputs(runner.outputs(runner.start(self.batch)))]


def _random(count: int, dims: int) -> Tensor:
    """Invertible matrices (count, dims, dims), neither orthogonal nor far from it, the same every time."""
    generator = torch.Generator().manual_seed(0)
    parts = torch.randn(2, count, dims, dims, generator=generator, dtype=torch.float64)
    left, right = torch.linalg.qr(parts).Q
    stretch = torch.linspace(0.7, 1.4, dims, dtype=torch.float64)
    return left @ (stretch[:, None] * right)
