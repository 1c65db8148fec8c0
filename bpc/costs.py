"""What a model costs by the units it keeps: parameters, bytes or seconds. Pruning in one shot and training use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np


@dataclass(frozen=True)
class Costs:
    """What a model costs: ``fixed`` plus, for each sublayer by name, ``tables[name][kept units]`` (0 … its count).

    ``shares[name]``: of an attention's cost, what goes with the dims of values, and with those of queries and keys.
    ``unit`` says what is counted: "parameters", "bytes", "s".
    """

    fixed: float
    tables: Mapping[str, np.ndarray]
    unit: str
    shares: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def of(self, name: str, units: int, values: float = 1.0, keys: float = 1.0) -> float:
        """One sublayer's, with so many units and shares of a head's dims."""
        by_values, by_keys = self.shares.get(name, (0.0, 0.0))
        return float(self.tables[name][units]) * (1 - by_values * (1 - values) - by_keys * (1 - keys))

    def total(self, kept: Mapping[str, int] | None = None, widths: Mapping[str, Widths] | None = None) -> float:
        """The cost with so many units kept, and heads so wide; None: all of them, all wide."""
        cost = self.fixed
        for name, table in self.tables.items():
            width = (widths or {}).get(name)
            shares = (1.0, 1.0) if width is None else (width.values / width.dims, width.keys / width.dims)
            cost += self.of(name, len(table) - 1 if kept is None else kept[name], *shares)
        return cost

    def up_to(self, counts: Mapping[str, int]) -> Costs:
        """Of a model in which no more than so many units are left: what it costs to keep them, or fewer still.

        Raises ValueError for sublayers that are not in the tables, or have more units there.
        """
        for name, count in counts.items():
            if count >= len(self.tables.get(name, ())):
                raise ValueError(
                    f"these prices are of another model: they do not say what {count} units of {name} cost"
                )
        return replace(self, tables={name: self.tables[name][: count + 1] for name, count in counts.items()})


@dataclass(frozen=True)
class Widths:
    """Dims of every head of an attention that stay: of its values, of its queries and keys; ``dims`` in all."""

    values: int
    keys: int
    dims: int

    @property
    def whole(self) -> bool:
        return self.values == self.keys == self.dims
