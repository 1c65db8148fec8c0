"""What is left of a model, as data: its layers, their attentions and FFNs, and the matrices of those."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from bpc.notebook import line, table
from passes.structure.role import Family, Part
from passes.structure.roles import LinearRole


@dataclass(frozen=True, repr=False)
class Matrix:
    """One weight, laid out with the hidden size down and its inner features (heads, FFN dims) across.

    ``kept``: bool (hidden, inner), True where the mask keeps the entry. ``present``: bool of the same shape, True where
    the small model still has the entry (the kept ones, and zeros that share a row or column with them).
    """

    role: LinearRole
    kept: Tensor
    present: Tensor

    @property
    def title(self) -> str:
        """What the matrix does, in words: "query", "up", "query + key + value"."""
        part = self.role.role.part
        if part is Part.GATE_UP:
            return "gate + up"
        return " + ".join(p for p in Part if part and p in part.members) or self.role.role

    @property
    def heads(self) -> int | None:
        """Heads across, for attention matrices."""
        return self.role.heads if self.role.role.family is Family.ATTENTION else None

    @property
    def fused(self) -> bool:
        """Several operands in one weight, side by side or head by head: its columns are no heads."""
        return self.role.role.part is not None and len(self.role.role.part.members) > 1


@dataclass(frozen=True, repr=False)
class BlockSummary:
    """One attention or FFN: its matrices, and which heads or dims are ``left``, (units,) bool.

    ``cross``: its queries and its keys are computed from different streams, in the decoder.
    """

    block_id: str
    matrices: tuple[Matrix, ...]
    left: Tensor
    cross: bool = False

    @property
    def is_attention(self) -> bool:
        """Attention (units are heads) or FFN (units are dims)."""
        return self.matrices[0].role.role.family is Family.ATTENTION

    @property
    def stack(self) -> str | None:
        """ "encoder" or "decoder" where a model has both; "head" for what lies behind the layers."""
        role = self.matrices[0].role
        return "head" if role.role.family is Family.MLP else role.stack

    @property
    def title(self) -> str:
        """In words: "attention", "cross-attention", "FFN"."""
        return ("cross-attention" if self.cross else "attention") if self.is_attention else "FFN"

    @property
    def unit(self) -> str:
        """What is counted: "head" or "dim"."""
        return "head" if self.is_attention else "dim"

    @property
    def units(self) -> int:
        """Heads or dims of the dense block."""
        return self.left.numel()

    @property
    def units_left(self) -> int:
        """Heads or dims that the small block has."""
        return int(self.left.sum())

    @property
    def parameters(self) -> int:
        """Entries of the dense matrices."""
        return sum(m.kept.numel() for m in self.matrices)

    @property
    def parameters_kept(self) -> int:
        """Entries the masks keep."""
        return sum(int(m.kept.sum()) for m in self.matrices)

    @property
    def parameters_present(self) -> int:
        """Entries of the small model's matrices."""
        return sum(int(m.present.sum()) for m in self.matrices)

    @property
    def padding(self) -> int:
        """Of these, entries of rows and columns that the masks leave nothing of: zeros that make heads equally wide."""
        empty = [m.present & ~m.kept.any(0) for m in self.matrices] if self.is_attention else []
        return sum(int(entries.sum()) for entries in empty)

    def __repr__(self) -> str:
        return f"BlockSummary({self.block_id}, {self.units_left:,} of {self.units:,} {self.unit}s left)"


@dataclass(frozen=True)
class Layer:
    """The attentions of a layer and the FFN behind them (either may be missing); ``index`` counts within its stack."""

    index: int
    blocks: tuple[BlockSummary, ...]

    @property
    def stack(self) -> str | None:
        """That of its blocks."""
        return self.blocks[0].stack

    @property
    def title(self) -> str:
        """In words: "layer 3", "decoder layer 3", "head"."""
        if self.stack == "head":
            return "head"
        return f"{self.stack} layer {self.index}" if self.stack else f"layer {self.index}"

    @property
    def attentions(self) -> tuple[BlockSummary, ...]:
        return tuple(b for b in self.blocks if b.is_attention)

    @property
    def ffns(self) -> tuple[BlockSummary, ...]:
        return tuple(b for b in self.blocks if not b.is_attention)


@dataclass(frozen=True)
class Summary:
    """All layers, in graph order. ``compiled``: ``present`` comes from a plan; otherwise it is estimated from masks."""

    layers: tuple[Layer, ...]
    compiled: bool

    @property
    def blocks(self) -> tuple[BlockSummary, ...]:
        """All attentions and FFNs."""
        return tuple(block for layer in self.layers for block in layer.blocks)

    def units(self, *, attention: bool) -> tuple[int, int]:
        """(left, of) heads or FFN dims of the whole model."""
        chosen = [b for b in self.blocks if b.is_attention == attention]
        return sum(b.units_left for b in chosen), sum(b.units for b in chosen)

    @property
    def padding(self) -> float:
        """Share of the small model's weights in layers, and so of the arithmetic of its linears, that pads heads."""
        present = sum(b.parameters_present for b in self.blocks)
        return sum(b.padding for b in self.blocks) / present if present else 0.0

    def __str__(self) -> str:
        parts = [f"{len(self.layers)} layers"]
        for attention, name in ((True, "heads"), (False, "FFN dims")):
            left, units = self.units(attention=attention)
            if units:
                parts.append(f"{left:,} of {units:,} {name} left")
        return ", ".join(parts)

    def __repr__(self) -> str:
        return f"Summary({self}{'' if self.compiled else ', estimated from masks'})"

    def rows(self) -> list[tuple[str, ...]]:
        """As text, a row per layer and one with the totals: layer, heads, FFN dims, weights kept, and present."""
        found = [(layer.title.replace("layer ", ""), *_row(layer.blocks)) for layer in self.layers]
        return [*found, ("all", *_row(self.blocks))]

    def _repr_html_(self) -> str:
        """For notebooks."""
        return line(repr(self)) + table(COLUMNS, self.rows())


COLUMNS = ("layer", "heads", "FFN dims", "weights kept", "weights in the small model")


def _row(blocks: Sequence[BlockSummary]) -> tuple[str, ...]:
    total = sum(b.parameters for b in blocks)
    return (
        _units([b for b in blocks if b.is_attention]),
        _units([b for b in blocks if not b.is_attention]),
        f"{sum(b.parameters_kept for b in blocks) / max(1, total):.1%}",
        f"{sum(b.parameters_present for b in blocks):,} / {total:,}",
    )


def _units(blocks: Sequence[BlockSummary]) -> str:
    return f"{sum(b.units_left for b in blocks):,} / {sum(b.units for b in blocks):,}" if blocks else "–"
