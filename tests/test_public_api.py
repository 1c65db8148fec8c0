"""The public names are a promise: adding one is a decision, removing one breaks users."""

from __future__ import annotations

import bpc
import passes


def test_bpc_exports_exactly_these_names() -> None:
    assert sorted(bpc.__all__) == [
        "DenseModel", "Program", "Spec", "Trainer", "compile", "export_onnx", "load", "load_spec",
    ]  # fmt: skip
    for name in bpc.__all__:
        assert callable(getattr(bpc, name)), name


def test_what_passes_promises_is_there() -> None:
    assert {"trace", "shrink", "Plan", "ShrinkResult", "TraceError", "MaskError", "VerificationError"} <= set(
        passes.__all__
    )
    for name in passes.__all__:
        assert hasattr(passes, name), name
