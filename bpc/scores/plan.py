"""What a resolved pattern spec says about one weight: the contract between `bpc.spec` and `bpc.scores`."""

from __future__ import annotations

from dataclasses import dataclass

from passes.structure.role import Role


@dataclass(frozen=True, repr=False)
class MaskPlan:
    """One masked weight matrix.

    The weight of shape ``shape`` (as stored) is cut into blocks of shape ``block``; the score grid has shape
    ``(shape[0] // block[0], shape[1] // block[1])``. Plans that name the same ``scores`` key share one score tensor;
    where ``transposed`` is true the shared tensor is this weight's grid transposed (rows of the first FFN matrix and
    columns of the second: paper section 4).

    A fused weight whose output features are ``tiles`` equal stretches (a gated FFN's [gate; up] in one matrix) repeats
    the score grid along the output dimension: the scores cover one stretch, and rows i, i + out/tiles, … share them.
    """

    weight: str  # parameter name, as in `model.named_parameters()`
    bias: str | None  # bias that is masked with the weight's output rows, or None
    shape: tuple[int, int]  # of the weight as stored
    block: tuple[int, int]  # (M', N') in the stored layout
    scores: str  # key of the score tensor
    transposed: bool  # the score tensor holds this weight's grid transposed
    out_dim: int  # which stored dim holds the output features: 0 for nn.Linear, 1 for Conv1D
    role: Role  # structural role, e.g. "attention.query"
    group: str  # regularisation group, e.g. "attention", "ffn"
    tiles: int = 1  # how many times the scores' grid repeats along out_dim
    part: str = ""  # which attention core or FFN of the model the weight belongs to: equal for its query, key, value …
    heads: int | None = None  # heads that the output features (of attention.output: the input features) divide into

    def __repr__(self) -> str:
        shape, block = ("×".join(map(str, sizes)) for sizes in (self.shape, self.block))
        return f"MaskPlan({self.weight!r}, {self.role}, {shape} in blocks of {block})"

    @property
    def grid(self) -> tuple[int, int]:
        """Shape of this weight's block grid, (rows, columns)."""
        return self.shape[0] // self.block[0], self.shape[1] // self.block[1]

    @property
    def score_shape(self) -> tuple[int, int]:
        """Shape of the score tensor: the grid of one tile, transposed where ``transposed``."""
        rows, columns = self.grid
        tile = (rows // self.tiles, columns) if self.out_dim == 0 else (rows, columns // self.tiles)
        return tile[::-1] if self.transposed else tile
