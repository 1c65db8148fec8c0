"""Ways to compute a step that change nothing of what it computes, while masks move."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from tests.bpc.train.shards import state, trainer
from tests.bpc.train.test_sharded import assert_same


def run(case: str, out: Path, **options: Any) -> dict[str, Any]:
    trained = trainer(case, out, 1, **options)
    trained.train()
    return state(trained)


def test_activations_computed_again_in_the_backward(tmp_path: Path) -> None:
    assert_same(run("llama", tmp_path, activation_checkpointing=True), run("llama", tmp_path))


@pytest.mark.parametrize("case", ["llama", "target"])
def test_a_compiled_step_follows_the_masks_without_compiling_every_time(tmp_path: Path, case: str) -> None:
    wanted = run(case, tmp_path)
    torch._dynamo.reset()
    counters.clear()
    assert_same(run(case, tmp_path, torch_compile=True, torch_compile_backend="aot_eager"), wanted)
    assert counters["stats"]["unique_graphs"] <= 3  # of six steps; frozen masks are another graph
    assert not counters["graph_break"]
