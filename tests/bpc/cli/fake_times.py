"""Times that follow from sizes, where a test is not about the clock."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


def by_parameters(patch: pytest.MonkeyPatch, cache: Path) -> None:
    """Models take as long as they have parameters."""

    def time_models(models: dict[str, Any], **_: Any) -> dict[str, SimpleNamespace]:
        return {n: SimpleNamespace(best=float(sum(p.numel() for p in m.parameters()))) for n, m in models.items()}

    patch.setattr("bpc.bench.comparison.time_models", time_models)
    patch.setattr("bpc.timing.remember.cache_directory", lambda: cache)
