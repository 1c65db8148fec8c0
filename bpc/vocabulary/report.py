"""What a reduction did, in numbers and in words."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from bpc.vocabulary.corpus import Coverage


@dataclass(frozen=True)
class Size:
    """Tokens (rows of the embedding), parameters and their bytes, tied ones once."""

    tokens: int
    parameters: int
    bytes: int

    @staticmethod
    def of(model: nn.Module, tokens: int) -> Size:
        """The size of a model."""
        parameters = list(model.parameters())
        return Size(tokens, sum(p.numel() for p in parameters), sum(p.numel() * p.element_size() for p in parameters))


@dataclass(frozen=True)
class TrimReport:
    """``required``: tokens that stay in any case. ``used``: distinct tokens of the corpus. ``corpus``, ``held_out``:
    what of them is covered. ``difference``: the largest of any output on ``compared`` texts."""

    before: Size
    after: Size
    required: int
    used: int
    corpus: Coverage
    held_out: Coverage | None
    difference: float
    compared: int

    def __str__(self) -> str:
        lines = [
            f"tokens      {self.before.tokens:,} -> {self.after.tokens:,}; the texts use {self.used:,}; "
            f"special tokens, bytes and characters: {self.required:,}",
            f"parameters  {self.before.parameters:,} -> {self.after.parameters:,}",
            f"weights     {self.before.bytes / 2**20:.1f} -> {self.after.bytes / 2**20:.1f} MiB",
            f"covered     {self.corpus}",
        ]
        if self.held_out is not None:
            lines.append(f"held out    {self.held_out}")
        same = "the same outputs, bit by bit" if self.difference == 0 else f"largest difference {self.difference:.2g}"
        lines.append(f"verified    {same}, on {self.compared} texts of kept tokens")
        return "\n".join(lines)
