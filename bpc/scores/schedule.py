"""How the threshold and λ move while training runs (method.md, "Schedule").

With progress p in [0, 1], warm-up share a and cool-down share b:

    c = 1 − clip((p − a) / (1 − a − b), 0, 1)
    τ(p) = τ₁ + (τ₀ − τ₁)·c³
    λ(p) = λ·r(p),  r = τ(p)/τ₁  (1 − c³ where τ₁ = 0)

The paper's w, wi and wf are a = wi·w/T and b = wf·w/T.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Threshold from ``initial`` to ``final`` along a cubic; ``warmup`` and ``cooldown`` are shares of the run."""

    initial: float = 0.0
    final: float = 0.1
    warmup: float = 0.1
    cooldown: float = 0.2

    def __post_init__(self) -> None:
        if self.warmup < 0 or self.cooldown < 0 or self.warmup + self.cooldown >= 1:
            raise ValueError(
                f"warmup ({self.warmup}) and cooldown ({self.cooldown}) are shares of the run: both at least 0 and "
                "together below 1, so that the threshold has time to move."
            )

    def remaining(self, progress: float) -> float:
        """The c of the formula: 1 until the warm-up ends, 0 once the cool-down starts."""
        return 1.0 - min(1.0, max(0.0, (progress - self.warmup) / (1.0 - self.warmup - self.cooldown)))

    def threshold(self, progress: float) -> float:
        """τ(p)."""
        return self.final + (self.initial - self.final) * self.remaining(progress) ** 3

    def ramp(self, progress: float) -> float:
        """Factor on λ, 0 to 1 over the run: τ(p)/τ₁ for a threshold that grows from 0."""
        if self.initial == 0.0 and self.final > 0.0:
            return self.threshold(progress) / self.final
        return 1.0 - self.remaining(progress) ** 3
