"""The pruning pattern: the paper's Figure 1 for a whole model, as data that the template draws.

Every matrix is a band with the hidden size down and its inner features across, so that a head is a vertical stripe of
all four attention matrices, and an FFN dim a stripe of all FFN matrices.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from bpc.report.layers import BlockSummary, Layer, Matrix, Summary
from passes.explain import Explanation, Unit

# Okabe-Ito colours: distinct for colour-blind readers and in grey. What is cut away shows the page behind.
KEPT, ZERO = (0x00, 0x72, 0xB2), (0xE6, 0x9F, 0x00)
_SHADES = 4  # of the share of a pixel that is kept, zero, or cut away
_FADING = 0.7  # below 1, a single dim that is left among many still shows
_PIXELS = 900_000  # of all images together: some 300 kB
_DOWN, _PER_HEAD, _ACROSS = 24, 16, 512
_GROUPS = 32  # of neighbouring FFN dims that one description covers
_BAND, _GAP = 18, 2  # heights in the drawing


@dataclass(frozen=True)
class Band:
    """One matrix: its image as a data URI, at ``top``; ``crisp``: of pixels so large that none is to be blurred."""

    title: str
    image: str
    top: int
    crisp: bool

    @property
    def label(self) -> str:
        """The title, where it fits beside the band; else its initials: "q + k + v"."""
        return self.title if len(self.title) < 10 else " + ".join(word[0] for word in self.title.split(" + "))


@dataclass(frozen=True)
class Cell:
    """A head, or neighbouring FFN dims: where it lies across, in [0, 1000], and what became of it in words."""

    left: float
    width: float
    text: str
    gone: bool


@dataclass(frozen=True)
class Drawing:
    """One block. Cells lie over the bands from ``top`` on; above are fused weights, whose columns are no heads."""

    title: str
    note: str
    bands: tuple[Band, ...]
    cells: tuple[Cell, ...]
    top: int
    height: int


@dataclass(frozen=True)
class Row:
    """One layer."""

    title: str
    drawings: tuple[Drawing, ...]


def pattern_rows(summary: Summary, explanation: Explanation | None = None) -> tuple[Row, ...]:
    """The picture, layer by layer. ``explanation``: of the same graph and masks; it says why heads went."""
    fates = {block.name: block.units for block in explanation.blocks} if explanation is not None else {}
    scale = _scale(summary)
    return tuple(
        Row(layer.title, tuple(_drawing(layer, block, fates, scale) for block in layer.blocks))
        for layer in summary.layers
    )


def _scale(summary: Summary) -> float:
    """By how much images are coarser than their best, in both directions, to stay within the budget."""
    pixels = sum(int(np.prod(_size(m, 1.0))) for b in summary.blocks for m in b.matrices)
    return min(1.0, (_PIXELS / max(1, pixels)) ** 0.5)


def _drawing(layer: Layer, block: BlockSummary, fates: Mapping[str, tuple[Unit, ...]], scale: float) -> Drawing:
    matrices = sorted(block.matrices, key=lambda m: not m.fused)
    bands = tuple(
        Band(m.title, _image(m, scale), i * (_BAND + _GAP), _size(m, scale)[1] < _ACROSS // 2)
        for i, m in enumerate(matrices)
    )
    place = f"{layer.title}, {block.title}"
    cells = _heads(place, block, fates.get(block.block_id, ())) if block.is_attention else _dims(place, block)
    return Drawing(
        block.title,
        f"{block.units_left:,} of {block.units:,} {'heads' if block.is_attention else 'dims'} left",
        bands,
        tuple(cells),
        sum(m.fused for m in matrices) * (_BAND + _GAP),
        len(bands) * (_BAND + _GAP) - _GAP,
    )


def _heads(place: str, block: BlockSummary, fates: tuple[Unit, ...]) -> Iterator[Cell]:
    heads = block.units
    width = 1000 / heads
    for head in range(heads):
        left = bool(block.left[head])
        fate = fates[head].reason if len(fates) == heads else ""
        text = f"{place}, head {head}: {'stays' if left else 'gone'}{f' ({fate})' if fate else ''}."
        counts = [found for m in block.matrices if (found := _dims_of(m, head, heads))]
        if counts:
            text += " Dims kept, and in the small model: " + "; ".join(counts) + "."
        yield Cell(round(head * width, 2), round(width, 2), text, not left)


def _dims_of(matrix: Matrix, head: int, heads: int) -> str:
    """ "key 12 and 16 of 64": what masks keep of a head's dims, and what the small model has of them."""
    own = matrix.heads
    if matrix.fused or own is None or heads % own:
        return ""
    kept, present = (
        t.any(0).view(own, -1)[head * own // heads] for t in (matrix.kept & matrix.present, matrix.present)
    )
    shared = f" (shared by {heads // own} heads)" if own < heads else ""
    return f"{matrix.title} {int(kept.sum())} and {int(present.sum())} of {kept.numel()}{shared}"


def _dims(place: str, block: BlockSummary) -> Iterator[Cell]:
    units = block.units
    kept = block.left.clone()
    for matrix in block.matrices:
        if not matrix.fused and matrix.kept.shape[1] == units:
            kept &= matrix.kept.any(0)
    edges = np.linspace(0, units, min(units, _GROUPS) + 1).round().astype(int)
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        left = int(block.left[begin:end].sum())
        which = f"dims {begin:,} to {end - 1:,}" if end - begin > 1 else f"dim {begin:,}"
        text = f"{place}, {which}: {int(kept[begin:end].sum()):,} of {end - begin:,} kept, {left:,} in the small model."
        yield Cell(round(1000 * begin / units, 2), round(1000 * (end - begin) / units, 2), text, not left)


def _size(matrix: Matrix, scale: float) -> tuple[int, int]:
    """(rows, columns) of the image; whole pixels per head."""
    hidden, inner = matrix.kept.shape
    heads = 1 if matrix.fused else matrix.heads or 1
    per_head = min(inner // heads, _ACROSS if heads == 1 else _PER_HEAD)
    return min(hidden, max(1, round(_DOWN * scale))), heads * max(1, round(per_head * scale))


def _image(matrix: Matrix, scale: float) -> str:
    """A PNG as a data URI: each pixel shaded by how much of what it covers is kept, zero, and cut away."""
    rows, columns = _size(matrix, scale)
    kept, zero = (
        np.rint(_SHADES * _pool(mask, rows, columns)).astype(int)
        for mask in (matrix.kept & matrix.present, matrix.present & ~matrix.kept)
    )
    zero = np.minimum(zero, _SHADES - kept)
    return "data:image/png;base64," + base64.b64encode(_png((_SHADES + 1) * kept + zero)).decode()


def _pool(mask: Tensor, rows: int, columns: int) -> np.ndarray:
    return np.asarray(adaptive_avg_pool2d(mask.float()[None], (rows, columns))[0])


def _palette() -> Iterator[tuple[int, ...]]:
    """RGBA of every (kept, zero) in shades, in the order of their numbers."""
    for kept in range(_SHADES + 1):
        for zero in range(_SHADES + 1):
            total = max(1, kept + zero)
            mixed = (round((kept * k + zero * z) / total) for k, z in zip(KEPT, ZERO, strict=True))
            yield (*mixed, round(255 * min(1, (kept + zero) / _SHADES) ** _FADING))


def _png(indices: np.ndarray) -> bytes:
    """An image of palette entries, (rows, columns) (PNG specification, colour type 3)."""
    rows, columns = indices.shape
    lines = b"".join(b"\0" + line.tobytes() for line in indices.astype(np.uint8))
    palette = list(_palette())
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)),
        (b"PLTE", bytes(value for colour in palette for value in colour[:3])),
        (b"tRNS", bytes(colour[3] for colour in palette)),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    )
    parts = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
