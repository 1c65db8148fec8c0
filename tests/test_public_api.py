"""The public names are a promise: adding one is a decision, removing one breaks users."""

from __future__ import annotations

from importlib import import_module

import pytest

import bpc
import passes
from passes.structure.roles import find_roles


def test_bpc_exports_exactly_these_names() -> None:
    assert sorted(bpc.__all__) == [
        "DenseModel", "Program", "Seq2SeqTrainer", "Spec", "Target", "Trainer", "compile", "export_onnx", "load",
        "load_spec", "prune_once", "trim_vocabulary", "widen",
    ]  # fmt: skip
    for name in bpc.__all__:
        assert callable(getattr(bpc, name)), name
    assert {*bpc.__all__, "__version__", "bench", "train"} <= set(dir(bpc))
    assert bpc.bench.compare.__name__ == "compare"


def test_what_passes_promises_is_there() -> None:
    assert {"trace", "shrink", "Plan", "ShrinkResult", "TraceError", "MaskError", "VerificationError"} <= set(
        passes.__all__
    )
    for name in passes.__all__:
        assert hasattr(passes, name), name


@pytest.mark.parametrize(
    ("old", "name", "value"),
    [
        ("passes.program", "trace", passes.trace),
        ("passes.program", "TraceError", passes.TraceError),
        ("passes.analysis.roles", "find_roles", find_roles),
    ],
)
def test_old_homes_forward_with_a_warning(old: str, name: str, value: object) -> None:
    with pytest.warns(DeprecationWarning, match=old):
        assert getattr(import_module(old), name) is value
