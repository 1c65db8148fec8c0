"""Times that follow from sizes, where a test is not about the clock."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn


def seconds(model: nn.Module) -> float:
    """As if every number beside the embeddings took one."""
    return float(sum(p.numel() for name, p in model.named_parameters() if "embeddings" not in name))


def by_size(patch: pytest.MonkeyPatch, cache: Path) -> None:
    """Models take `seconds` from now on, and nothing is remembered of the real clock."""

    def time_models(models: dict[str, Any], **_: Any) -> dict[str, SimpleNamespace]:
        return {name: SimpleNamespace(best=seconds(model)) for name, model in models.items()}

    patch.setattr("bpc.bench.comparison.time_models", time_models)
    patch.setattr("bpc.timing.remember.cache_directory", lambda: cache)
