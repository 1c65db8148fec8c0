"""Which runs the options of a benchmark ask for."""

from __future__ import annotations

import pytest

from bpc.bench.cases import parse_shape, runs
from bpc.terminal.errors import CommandError


def test_only_pairs_that_exist_are_run() -> None:
    assert runs(["onnx", "eager"], ["int8", "bfloat16"], None) == [("onnx", "int8"), ("eager", "bfloat16")]
    assert runs(["onnx", "eager"], ["float32"], "int8") == [("onnx", "float32")]  # eager has no int8 for the dense side


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["onnx"], ["float32"], None, "tpu"), "--device tpu: choose cpu, cuda"),
        ((["cudagraphs"], ["float32"], None), "--runtime cudagraphs on cpu: choose onnx, eager, compiled"),
        ((["onnx"], ["float32"], "float16"), "--dtype float16: onnx on cpu have float32, int8"),
    ],
)
def test_names_that_fit_nothing_are_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        runs(*arguments)  # type: ignore[arg-type]


def test_shapes_are_batch_x_length() -> None:
    assert parse_shape("8x128") == (8, 128)
    for wrong in ("8", "8x", "0x4", "-1x4", "8x4x2", "8×4"):
        with pytest.raises(CommandError, match=f"--shape {wrong}: write batch x length"):
            parse_shape(wrong)
