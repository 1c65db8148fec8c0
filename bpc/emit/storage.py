"""Writing an ONNX file: complete or not at all, weights beside it when they are too large for one file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from bpc.writing import is_device, new_file, new_files

# protobuf refuses messages over 2 GB; leave room for the graph itself.
EXTERNAL_ABOVE = 1_900_000_000


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers."""
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)


def write(model: ir.Model, directory: Path, name: str, external: bool | None = None) -> Path:
    """Write ``model`` as ``directory/name``; weights beside it in ``name.data`` if ``external`` (None: over 1.9 GB)."""
    path = directory / name
    if external is None:
        external = weight_bytes(model) > EXTERNAL_ABOVE
    if external:
        ir.save(_without_weight_shapes(model), path, external_data=f"{name}.data")
    else:
        _write_one_file(model, path)
    return path


def _without_weight_shapes(model: ir.Model) -> ir.Model:
    """A copy that says nothing of its weights beside the weights themselves: no second shape (value_info) to go stale.

    ONNX Runtime's quantizers transpose the weights of Gemm and keep such a shape; shape inference then stops.
    """
    copy = model.clone()
    for value in copy.graph.initializers.values():
        value.shape = value.type = None
        value.metadata_props.clear()
    return copy


def _write_one_file(model: ir.Model, path: Path) -> None:
    """The model as one protobuf message, weights written one by one.

    Serializing it whole holds every weight three times more in memory. The graph's message is its own fields, then one
    `TensorProto` per weight; only the lengths have to be known before.
    """
    skeleton = _without_weight_shapes(model)
    for value in skeleton.graph.initializers.values():
        value.const_value = ir.tensor(np.zeros(0, np.float32), name=value.name)
    proto = ir.to_proto(skeleton)
    del proto.graph.initializer[:]
    graph = proto.graph.SerializeToString()
    proto.ClearField("graph")
    named = {n: v.const_value for n, v in model.graph.initializers.items() if v.const_value is not None}
    heads = [_tensor_head(name, tensor) for name, tensor in named.items()]
    weights = list(named.values())
    sizes = [len(head) + tensor.nbytes for head, tensor in zip(heads, weights, strict=True)]
    fields = [_field(onnx.GraphProto.INITIALIZER_FIELD_NUMBER, size) for size in sizes]
    total = len(graph) + sum(map(len, fields)) + sum(sizes)
    with path.open("wb") as file:
        file.write(proto.SerializeToString())
        file.write(_field(onnx.ModelProto.GRAPH_FIELD_NUMBER, total) + graph)
        for field, head, tensor in zip(fields, heads, weights, strict=True):
            file.write(field + head)
            file.write(tensor.tobytes())


def _tensor_head(name: str, tensor: ir.TensorProtocol) -> bytes:
    """A `TensorProto` up to its raw data, which end it."""
    head = onnx.TensorProto(name=name, dims=tensor.shape.numpy(), data_type=tensor.dtype.value)
    return head.SerializeToString() + _field(onnx.TensorProto.RAW_DATA_FIELD_NUMBER, tensor.nbytes)


def _field(number: int, length: int) -> bytes:
    """Tag and length of a length-delimited protobuf field (wire type 2)."""
    return _varint(number << 3 | 2) + _varint(length)


def _varint(number: int) -> bytes:
    parts = []
    while True:
        number, low = number >> 7, number & 0x7F
        parts.append(low | 0x80 if number else low)
        if not number:
            return bytes(parts)


@contextlib.contextmanager
def new_model_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """`bpc.writing.new_file` for a model whose weights may lie beside it in ``NAME.data``, which goes with it.

    A failed export leaves the file as it was; a repeated one replaces it, its data file included.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"{path} is a directory; give the path of the .onnx file to write")
    if is_device(path):
        with new_file(path) as staged:  # a device: no place beside it for weights
            yield staged
        return
    existed = target.exists()
    with new_files(target.parent, keystones=(target.name,)) as folder:
        yield folder / target.name
    data = target.with_name(f"{target.name}.data")
    if existed and data.is_file() and not _refers_to(target, data.name):
        data.unlink()


def _refers_to(model: Path, data: str) -> bool:
    values = ir.load(model).graph.initializers.values()
    return any(isinstance(v.const_value, ir.ExternalTensor) and v.const_value.location == data for v in values)
