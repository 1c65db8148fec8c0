"""How far rounding alone may carry a value: the floor, measured, and the bound made of it.

With m the masked model in its own precision, M the same in float64 and s the small one, for each index c of each dim
whose size is the same on all inputs (channels, heads; maxima and means over everything else, inputs included):

    floor_c = max |m - M|        r = median of floor_c / rms_c        rms_c = sqrt(mean M²)
    |s - M| <= FACTOR · max(floor_c, r · rms_c) + ULPS · eps · rms_c

Why so:

- *Per index.* One channel of 1e6 has a floor of its own; beside it an error of per cents in channels of 1 is seen. So
  it is in outputs of size 1e-6: nothing is compared with 1.
- *FACTOR.* m and s round differently but alike: s sums fewer terms in another order. The largest error of a few dozen
  seldom differs by a factor of two, of a handful by more; 8 is wide, and wrong folds are off by thousands of floors.
- *r.* Few numbers may all be rounded luckily: an index then gets what its neighbours lose, relative to their size.
  Indices that hold less than a thousandth of the largest have no say: what cancels to nothing is all rounding.
- *ULPS.* m may be exact (small integers, one operator), or a constant whose few terms rounded luckily; s still sums
  them in another order. In float32 and finer a few more units cost nothing; in half precision they would be per cents.

Where the bound is *blunt*, because rounding takes per cents of an output (bfloat16 beside channels of 20,000), it would
hide as large an error. There the small graph is run in float64 as well (`passes.verify.exactly`).

A model in float64 has no M beside itself. Errors grow by the model's own conditioning times the unit of rounding, to
first order: what float32 loses (g, the model run in float32), times 2^-29, is float64's floor. A sum in another order
would only show the part that sums lose. Where g overflows, a growth of GROWTH units is assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

FACTOR, ULPS, HALF_ULPS, GROWTH = 8.0, 16.0, 2.0, 64.0
BLUNT = 1 / 32  # of an index's size: a bound above it would hide an error of some per cents
_COARSE_TO_DOUBLE = torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Sample:
    """One floating value on one input: in the model's own precision, exactly, in float32 (of float64 models).

    ``compared`` is False where nothing is promised; None: all of it is.
    """

    own: torch.Tensor
    exact: torch.Tensor
    coarse: torch.Tensor | None = None
    compared: torch.Tensor | None = None

    def error(self, other: torch.Tensor) -> torch.Tensor:
        """|other - exact| in float64, 0 where nothing is promised; inf where ``other`` is NaN."""
        difference = (other.double() - self.exact.double()).abs().nan_to_num(nan=torch.inf, posinf=torch.inf)
        return self.seen(difference)

    def seen(self, values: torch.Tensor) -> torch.Tensor:
        """``values``, of the sample's shape, with 0 where nothing is promised."""
        return values if self.compared is None else values.masked_fill(~self.compared, 0.0)

    def rounding(self) -> torch.Tensor:
        """What the model itself loses, entry by entry."""
        lost = self.error(self.own)
        if self.own.dtype is not torch.float64:
            return lost
        eps = torch.finfo(torch.float64).eps
        assumed = GROWTH * eps * self.exact.double().abs()
        if self.coarse is None:
            return torch.maximum(lost, assumed)
        measured = self.error(self.coarse) * _COARSE_TO_DOUBLE
        return torch.maximum(lost, torch.where(measured.isfinite(), measured, assumed))


class Bounds:
    """The bound of one value, from samples of it on one or more inputs.

    ``blunt``: rounding explains so much of some index that the bound says little about it (see `exactly`).
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.floor = max((float(s.rounding().max()) for s in samples if s.own.numel()), default=0.0)
        self._eps = max(torch.finfo(s.own.dtype).eps for s in samples)
        dims = _common_dims([s.own.shape for s in samples])
        self._size = {dim: _rms(samples, dim) for dim in dims}
        self._allowed = {dim: _allowed(samples, dim, self._size[dim]) for dim in dims}
        self.blunt = any(
            bool((self._allowed[dim] > BLUNT * size)[_telling(size)].any()) for dim, size in self._size.items()
        )

    def excess(self, sample: Sample, other: torch.Tensor) -> tuple[float, float]:
        """(largest |other - M| over what is allowed there, that |other - M|); above 1 is no rounding.

        ``other`` has the sample's shape.
        """
        return _worst(sample.error(other), self._allowed)

    def exactly(self, sample: Sample, other: torch.Tensor, moved: torch.Tensor) -> tuple[float, float]:
        """`excess` of a float64 run: ``other`` may be off by what ``moved``, the same run after numbers that it holds
        anew were moved by their rounding, shows, and by the bound as it would be in float64."""
        finer = torch.finfo(torch.float64).eps / self._eps
        shift = sample.seen((other.double() - moved.double()).abs())
        allowed = {}
        for dim, size in self._size.items():
            shifts = _largest(shift, dim)
            allowed[dim] = FACTOR * _usual(shifts, size) + finer * self._allowed[dim]
        return _worst(sample.error(other), allowed)


def _worst(error: torch.Tensor, allowed: dict[int | None, torch.Tensor]) -> tuple[float, float]:
    worst = 0.0, 0.0
    for dim, limit in allowed.items():
        found = _largest(error, dim)
        if found.numel() and float(found.max()) > 0:
            ratio = torch.where(limit > 0, found / limit, torch.where(found > 0, torch.inf, 0.0))
            index = int(ratio.argmax())
            worst = max(worst, (float(ratio[index]), float(found[index])))
    return worst


def _common_dims(shapes: Sequence[torch.Size]) -> list[int | None]:
    """Dims that have one size, above 1, on all inputs; [None], everything together, if there are none."""
    dims = [d for d, sizes in enumerate(zip(*shapes, strict=True)) if len(set(sizes)) == 1 and sizes[0] > 1]
    return [*dims] or [None]


def _rms(samples: Sequence[Sample], dim: int | None) -> torch.Tensor:
    """The size of each index of ``dim``: (size,) float64."""
    squares = torch.stack([_total(s.seen(s.exact.double()).square(), dim) for s in samples]).sum(0)
    counts = torch.stack([_total(_counted(s), dim) for s in samples]).sum(0)
    return (squares / counts.clamp(min=1)).sqrt()


def _allowed(samples: Sequence[Sample], dim: int | None, size: torch.Tensor) -> torch.Tensor:
    """What each index of ``dim`` may differ by: (size,) float64."""
    floors = torch.stack([_largest(s.rounding(), dim) for s in samples]).amax(0)
    eps = max(torch.finfo(s.own.dtype).eps for s in samples)
    ulps = ULPS if eps <= torch.finfo(torch.float32).eps else HALF_ULPS
    return FACTOR * _usual(floors, size) + ulps * eps * size


def _usual(floors: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """Each index's own floor, or what its neighbours lose relative to their size, whichever is more."""
    relative = (floors / size)[_telling(size)]
    usual = float(relative.median()) if relative.numel() else 0.0
    return torch.maximum(floors, usual * size)


def _telling(size: torch.Tensor) -> torch.Tensor:
    return size > 1e-3 * size.max() if size.numel() else size > 0


def _counted(sample: Sample) -> torch.Tensor:
    if sample.compared is None:
        return torch.ones_like(sample.exact, dtype=torch.float64)
    return sample.compared.double()


def _largest(values: torch.Tensor, dim: int | None) -> torch.Tensor:
    if values.numel() == 0:
        return values.new_zeros(1 if dim is None else values.shape[dim])
    return values.max().reshape(1) if dim is None else values.movedim(dim, -1).reshape(-1, values.shape[dim]).amax(0)


def _total(values: torch.Tensor, dim: int | None) -> torch.Tensor:
    return values.sum().reshape(1) if dim is None else values.movedim(dim, -1).reshape(-1, values.shape[dim]).sum(0)
