"""What a resolved pattern spec says about one weight: the contract between `bpc.spec` and `bpc.scores`."""

from __future__ import annotations

from dataclasses import dataclass

from passes.structure.role import Role


@dataclass(frozen=True, repr=False)
class MaskPlan:
    """One masked weight matrix.

    The weight of shape ``shape`` (as stored) is cut into blocks of shape ``block``; the score grid has shape
    ``(shape[0] // block[0], shape[1] // block[1])``. Plans that name the same ``scores`` key share one score tensor.

    Blocks of paired rules are whole rows or whole columns (paper section 4). Then the scores are a column of
    ``unit_count`` entries, and ``units`` names the entry of each block of this weight, -1 for blocks that always stay.
    ``stretches`` says which entries are dims inside heads: each (start, heads, dims) is heads · dims entries from start
    on, head by head. Where there are two, queries and keys come first, then values and outputs.
    """

    weight: str  # parameter name, as in `model.named_parameters()`
    bias: str | None  # bias that is masked with the weight's output rows, or None
    shape: tuple[int, int]  # of the weight as stored
    block: tuple[int, int]  # (M', N') in the stored layout
    scores: str  # key of the score tensor
    out_dim: int  # which stored dim holds the output features: 0 for nn.Linear, 1 for Conv1D
    role: Role  # structural role, e.g. "attention.query"
    group: str  # regularisation group, e.g. "attention", "ffn"
    tiles: int = 1  # equal stretches of output features that the dims of a fused gate and up repeat in
    part: str = ""  # which attention core or FFN of the model the weight belongs to: equal for its query, key, value …
    heads: int | None = None  # heads that the output features (of attention.output: the input features) divide into
    units: tuple[int, ...] | None = None
    unit_count: int = 0
    stretches: tuple[tuple[int, int, int], ...] = ()
    carried: tuple[bool, ...] | None = None  # by block: in a forward, another weight of its unit can carry the mask

    def __repr__(self) -> str:
        shape, block = ("×".join(map(str, sizes)) for sizes in (self.shape, self.block))
        return f"MaskPlan({self.weight!r}, {self.role}, {shape} in blocks of {block})"

    @property
    def grid(self) -> tuple[int, int]:
        """Shape of this weight's block grid, (rows, columns)."""
        return self.shape[0] // self.block[0], self.shape[1] // self.block[1]

    @property
    def score_shape(self) -> tuple[int, int]:
        """Shape of the score tensor: the grid, or (units, 1)."""
        return self.grid if self.units is None else (self.unit_count, 1)
