from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from bpc.emit.floats import ConvertFloats
from bpc.emit.ir_tools import add_initializer
from bpc.emit.storage import new_model_file, write


@pytest.mark.parametrize("half", [False, True])
def test_the_streamed_file_is_the_message_protobuf_would_write(exported: ir.Model, tmp_path: Path, half: bool) -> None:
    model = exported.clone()
    if half:
        ConvertFloats(ir.DataType.BFLOAT16)(model)
    for name, array in (
        ("number", np.array(3, np.int64)),
        ("flags", np.array([True, False])),
        ("none", np.zeros((0, 2), np.float32)),
        ("wide", np.arange(300, dtype=np.float32).astype(ml_dtypes.bfloat16)),
    ):
        add_initializer(model.graph, name, array)
    path = write(model, tmp_path, "m.onnx")
    whole = ir.to_proto(model)
    others = [info for info in whole.graph.value_info if info.name not in model.graph.initializers]
    assert 0 < len(others) < len(whole.graph.value_info)
    del whole.graph.value_info[:]  # weights carry their own shapes: a second one could go stale
    whole.graph.value_info.extend(others)
    assert path.stat().st_size == whole.ByteSize()  # no longer, no shorter: lengths are canonical
    read = onnx.load(path)
    assert len(read.graph.initializer) == len(whole.graph.initializer) > 20
    for a, b in zip(read.graph.initializer, whole.graph.initializer, strict=True):
        assert (a.name, a.dims, a.data_type) == (b.name, b.dims, b.data_type)
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(a), onnx.numpy_helper.to_array(b))
    del read.graph.initializer[:], whole.graph.initializer[:]
    assert read == whole
    assert model.graph.initializers["number"].const_value.numpy() == 3  # the model keeps its weights


def test_weights_beside_a_model_come_and_go_with_it(exported: ir.Model, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    (tmp_path / "m.onnx.data").write_text("not of any model")
    for external, names in ((False, {"m.onnx", "m.onnx.data"}), (True, {"m.onnx", "m.onnx.data"}), (False, {"m.onnx"})):
        with new_model_file(path) as staged:
            write(exported, staged.parent, staged.name, external=external)
        assert {file.name for file in tmp_path.iterdir()} == names
        assert len(ir.load(path).graph.initializers) == len(exported.graph.initializers)


def test_a_failed_export_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_text("before")

    def export() -> None:
        with new_model_file(path) as staged:
            staged.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("m.onnx", "before")]
    with pytest.raises(IsADirectoryError, match=r"give the path of the \.onnx file"), new_model_file(tmp_path):
        pass
