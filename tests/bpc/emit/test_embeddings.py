"""Embedding tables in 8 and 4 bits: what the file holds, what it computes, and what ONNX Runtime makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

import passes
from bpc.emit import embeddings as emit_embeddings
from bpc.emit.check import ExportError
from bpc.emit.embeddings import Bits, QuantizeEmbeddings, StoredTable, embedding_tables, with_stored_tables
from bpc.emit.ir_tools import add_initializer
from bpc.emit.onnx import export_onnx
from bpc.emit.rounding import blocks_int4, rows_int8
from tests.bpc.emit.models import numbers, operators, parse, run
from tests.bpc.emit.test_rounding import from_int4


@pytest.fixture(scope="module", autouse=True)
def small_tables_count() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emit_embeddings, "SMALL", 1)
        patch.setattr(emit_embeddings, "LARGE", 1)
        yield


def lookup(table: np.ndarray, rank: int = 2, axis: int = 0) -> ir.Model:
    """y = rows of ``table`` along ``axis`` at ids of ``rank`` dims."""
    ids = [f"d{i}" for i in range(rank)]
    shape = [*map(str, table.shape[:axis]), *ids, *map(str, table.shape[axis + 1 :])]
    signature = f"(int64[{','.join(ids)}] ids) => (float[{','.join(shape)}] y)"
    return parse(signature, f"y = Gather<axis = {axis}>(table, ids)", {"table": table})


def read(table: np.ndarray, bits: Bits) -> np.ndarray:
    """What the file holds, as numpy has it."""
    if bits == 4:
        return from_int4(*blocks_int4(table), table.shape[-1])
    rows, scales = rows_int8(table)
    return rows * scales


def quantize(model: ir.Model, bits: Bits) -> QuantizeEmbeddings:
    step = QuantizeEmbeddings({"table"}, bits)
    step(model)
    return step


@settings(max_examples=40, deadline=None)
@given(
    bits=st.sampled_from([8, 4]),
    rows=st.integers(1, 9),
    width=st.one_of(st.integers(1, 8), st.sampled_from([31, 32, 33, 64, 70])),
    ids=st.lists(st.integers(0, 4), max_size=3),
    beside=st.sampled_from([0, 1, 3]),
    seed=st.integers(0, 99),
)
def test_rows_are_what_numpy_makes_of_the_stored_table(
    bits: Bits, rows: int, width: int, ids: list[int], beside: int, seed: int
) -> None:
    shape = (beside, rows, width) if beside else (rows, width)
    table = numbers(*shape, seed=seed) * np.float32(3)
    axis = len(shape) - 2
    model = lookup(table, len(ids), axis)
    assert not quantize(model, bits).kept
    assert "table" not in model.graph.initializers
    kinds = {value.dtype for value in model.graph.initializers.values() if value.dtype != ir.DataType.INT64}
    assert (ir.DataType.INT8 if bits == 8 else ir.DataType.UINT8) in kinds
    places = np.random.default_rng(seed).integers(-rows, rows, ids)
    np.testing.assert_array_equal(run(model, ids=places)[0], np.take(read(table, bits), places, axis))


@pytest.mark.parametrize("bits", [8, 4])
def test_the_rewrite_happens_once_and_shapes_stay_known(bits: Bits) -> None:
    model = lookup(numbers(50, 40))
    step = QuantizeEmbeddings({"table"}, bits)
    assert step(model).modified
    assert not step(model).modified
    assert [str(node.outputs[0].shape) for node in model.graph if node.outputs[0].shape is None] == []
    assert operators(model)["Gather"] == 2


def initializers(model: ir.Model, folder: Path) -> dict[str, int]:
    """Numbers of each kind in what ONNX Runtime makes of the file at its highest level."""
    ir.save(model, folder / "m.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(folder / "m.onnx", options, providers=["CPUExecutionProvider"])
    sizes: dict[str, int] = {}
    for value in ir.load(folder / "optimised.onnx").graph.initializers.values():
        assert value.const_value is not None
        kind = value.const_value.dtype.name
        sizes[kind] = sizes.get(kind, 0) + value.const_value.size
    return sizes


@pytest.mark.parametrize(("bits", "kind", "size"), [(8, "INT8", 4000), (4, "UINT8", 3200)])
def test_the_runtime_keeps_the_table_small(bits: Bits, kind: str, size: int, tmp_path: Path) -> None:
    model = lookup(numbers(100, 40))
    assert initializers(model, tmp_path) == {"FLOAT": 4000}
    quantize(model, bits)
    found = initializers(model, tmp_path)
    assert found[kind] == size
    assert found.get("FLOAT", 0) <= 100 + 2  # the scales of rows; the constants of 4 bits


TIED = "y = Gather(table, ids) turned = Transpose<perm = [1, 0]>(table) z = MatMul(y, turned)"


@pytest.mark.parametrize("bits", [8, 4])
def test_a_tied_table_is_stored_once_and_in_8_bits(bits: Bits, tmp_path: Path) -> None:
    table = numbers(60, 40)
    model = parse("(int64[batch, length] ids) => (float[batch, length, 60] z)", TIED, {"table": table})
    assert not quantize(model, bits).kept
    assert [v.name for v in model.graph.initializers.values() if v.const_value.size >= table.size] == ["table.int8"]
    ids = np.array([[3, 59, 0], [7, 7, 1]])
    stored = read(table, 8)
    np.testing.assert_allclose(run(model, ids=ids)[0], stored[ids] @ stored.T, rtol=1e-5, atol=1e-5)
    found = initializers(model, tmp_path)
    assert (found["INT8"], found["FLOAT"]) == (2400, 2400 + 60)  # the product's, folded once


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("places = Constant<value_ints = [1, 2, 1]>() y = Gather(table, places)", "read by Gather, not looked up"),
        ("y = Gather<axis = 1>(table, ids)", "read by Gather, not looked up"),
        ("y = MatMul(x, table)", "read by MatMul, not looked up"),
    ],
)
def test_what_is_no_lookup_is_left_alone_and_named(body: str, reason: str) -> None:
    signature = "(int64[n] ids, float[n, 4] x) => (float[a, b] y)"
    model = parse(signature, body, {"table": numbers(4, 4)})
    if "places" in body:  # a constant as the exporter has it
        node = model.graph[1]
        node.replace_input_with(1, add_initializer(model.graph, "at", np.array([1, 2, 1])))
        model.graph.remove(model.graph[0])
    assert quantize(model, 8).kept == {"table": reason}
    assert model.graph.initializers["table"].dtype == ir.DataType.FLOAT
    assert len(model.graph) == 1


@pytest.mark.parametrize("bad", [np.inf, np.nan, 1e35])
def test_a_table_of_numbers_out_of_range_stays(bad: float) -> None:
    table = numbers(9, 8)
    table[2, 3] = bad
    model = lookup(np.where(np.isfinite(table), table, 0))
    model.graph.initializers["table"].const_value = ir.tensor(table, name="table")
    step = quantize(model, 8)
    assert "no precision" in step.kept["table"]
    assert operators(model) == {"Gather": 1}


def test_small_tables_stay_and_middling_ones_take_8_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emit_embeddings, "SMALL", 100)
    monkeypatch.setattr(emit_embeddings, "LARGE", 1000)
    kinds = []
    for rows in (9, 10, 99, 100):
        model = lookup(numbers(rows, 10))
        assert not quantize(model, 4).kept
        kinds.append(next(node for node in model.graph if node.op_type == "Gather").inputs[0].dtype.name)
    assert kinds == ["FLOAT", "INT8", "INT8", "UINT8"]


class Positions(nn.Module):
    """A learned table, and a computed one that is indexed otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30, 8)
        self.register_buffer("angles", torch.linspace(0, 1, 160).view(20, 8))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.words(ids) * torch.cos(self.angles[ids % 20])


def test_only_embeddings_are_tables() -> None:
    graph = passes.trace(Positions().eval(), torch.arange(6).view(2, 3))
    assert embedding_tables(graph) == {"words.weight"}


IDS = torch.randint(3, 60, (2, 9), generator=torch.Generator().manual_seed(0))


def family(name: str) -> tuple[nn.Module, dict[str, torch.Tensor | bool]]:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "num_hidden_layers": 2}
    mask = torch.ones_like(IDS).index_fill(1, torch.tensor([0, 1]), 0)
    if name == "llama":
        config = LlamaConfig(vocab_size=640, num_key_value_heads=2, tie_word_embeddings=True, **sizes)
        return LlamaForCausalLM(config).eval(), {"input_ids": IDS, "attention_mask": mask, "use_cache": False}
    return BertModel(BertConfig(vocab_size=640, **sizes)).eval(), {"input_ids": IDS, "attention_mask": mask.flip(1)}


@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_files_hold_no_table_in_float32(name: str, dtype: str, tmp_path: Path) -> None:
    model, inputs = family(name)
    graph = passes.trace(model, inputs)
    tables = {graph.get_parameter(n).shape for n in embedding_tables(graph)}
    for embeddings in ("int8", "int4"):
        written = export_onnx(graph, tmp_path / "m.onnx", dtype=dtype, embeddings=embeddings)  # type: ignore[arg-type]
        stored = ir.load(written.path)
        floats = [v for v in stored.graph.initializers.values() if v.dtype == ir.DataType.FLOAT]
        assert not tables & {torch.Size(v.shape.numpy()) for v in floats}
        assert stored.metadata_props["bpc.embeddings"] == embeddings
        assert written.agreement is not None
        assert 1e-3 < written.agreement.share < (0.1 if embeddings == "int8" else 1)
        assert not written.kept


def test_int8_files_have_int8_tables_unless_told_otherwise(tmp_path: Path) -> None:
    model, inputs = family("bert")
    graph = passes.trace(model, inputs)
    sizes = {
        option: export_onnx(graph, tmp_path / "m.onnx", dtype="int8", embeddings=option).path.stat().st_size
        for option in (None, "int8", "float32")
    }
    assert sizes[None] == sizes["int8"] < sizes["float32"] - 32 * (640 + 512) * 2.5
    plain = ir.load(export_onnx(graph, tmp_path / "m.onnx").path)
    assert not [v for v in plain.graph.initializers.values() if v.dtype == ir.DataType.INT8]


def test_tables_are_not_for_half_precision(tmp_path: Path) -> None:
    model, inputs = family("bert")
    graph = passes.trace(model, inputs)
    with pytest.raises(ValueError, match='embeddings="int4" is for dtype="float32" and "int8"'):
        export_onnx(graph, tmp_path / "m.onnx", "cuda", "float16", embeddings="int4")
    with pytest.raises(ValueError, match="embeddings='int3' is not one of float32, int8, int4"):
        export_onnx(graph, tmp_path / "m.onnx", embeddings="int3")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_a_wrong_row_is_an_error_and_no_rounding(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, scales = rows_int8(table)
        return np.roll(rows, 1, axis=0), scales

    model, inputs = family(name)
    graph = passes.trace(model, inputs)
    right = with_stored_tables(graph, {n: _stored(graph, n) for n in embedding_tables(graph)})
    monkeypatch.setattr(emit_embeddings, "rows_int8", shifted)
    monkeypatch.setattr("bpc.emit.onnx.with_stored_tables", lambda *_: right)
    with pytest.raises(ExportError, match="differs from the graph"):
        export_onnx(graph, tmp_path / "m.onnx", embeddings="int8")


def _stored(graph: fx.GraphModule, name: str) -> StoredTable:
    return StoredTable(*rows_int8(graph.get_parameter(name).detach().numpy()), 32)


def test_the_graph_of_a_right_file_reads_stored_tables_where_the_file_does() -> None:
    model, inputs = family("llama")
    graph = passes.trace(model, inputs)
    (name,) = embedding_tables(graph)
    table = _stored(graph, name)
    for everywhere in (False, True):
        stored = with_stored_tables(graph, {name: replace(table, everywhere=everywhere)})
        read = model.get_parameter(name).detach().clone()
        rounded = torch.from_numpy(table.numbers * table.scales)
        with torch.no_grad():
            hidden = model.model(IDS, attention_mask=inputs["attention_mask"], use_cache=False)[0]
            model.get_parameter(name).copy_(rounded)
            hidden_stored = model.model(IDS, attention_mask=inputs["attention_mask"], use_cache=False)[0]
            model.get_parameter(name).copy_(read)
            expected = hidden_stored @ (rounded if everywhere else read).T
            found = stored(**inputs)["logits"]
        seen = inputs["attention_mask"].bool()
        torch.testing.assert_close(found[seen], expected[seen], rtol=1e-4, atol=1e-5)
        assert float((hidden - hidden_stored)[seen].abs().max()) > 1e-3
