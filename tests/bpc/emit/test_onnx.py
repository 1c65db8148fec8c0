from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import fx, nn

import passes
from bpc.emit import onnx as emit_onnx
from bpc.emit import storage
from bpc.emit.check import ExportError
from bpc.emit.ir_tools import add_initializer, insert
from bpc.emit.onnx import export_onnx, read_recipe
from bpc.emit.recipe import PLAIN, Recipe, default_recipe


def run(path: Path, **inputs: torch.Tensor) -> list[np.ndarray]:
    """Outputs under a plain session: no session options."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {name: value.numpy() for name, value in inputs.items()})


def test_file_agrees_with_torch_on_shapes_it_was_not_traced_with(tiny_graph: fx.GraphModule, tmp_path: Path) -> None:
    written = export_onnx(tiny_graph, tmp_path / "model.onnx")
    assert written.axes == {"batch": 2, "sequence": 7}
    for batch, length in ((1, 1), (1, 13), (5, 3)):
        ids = torch.randint(1, 50, (batch, length))
        mask = torch.ones_like(ids)
        mask[0, length // 2 + 1 :] = 0
        with torch.no_grad():
            expected = tiny_graph(input_ids=ids, attention_mask=mask)
        actual = run(written.path, input_ids=ids, attention_mask=mask)
        assert float(expected["start_logits"].abs().max()) > 0.5  # the weights matter
        np.testing.assert_allclose(actual[0], expected["start_logits"], atol=2e-5)
        np.testing.assert_allclose(actual[1], expected["end_logits"], atol=2e-5)


def test_names_of_inputs_outputs_and_axes(tiny_graph: fx.GraphModule, tmp_path: Path) -> None:
    graph = ir.load(export_onnx(tiny_graph, tmp_path / "m.onnx").path).graph
    assert [(v.name, str(v.shape)) for v in graph.inputs] == [
        ("input_ids", "[batch,sequence]"),
        ("attention_mask", "[batch,sequence]"),
    ]
    assert [v.name for v in graph.outputs] == ["start_logits", "end_logits"]


def test_recipe_is_stored_and_repeats_the_file(tiny_graph: fx.GraphModule, tmp_path: Path) -> None:
    first = export_onnx(tiny_graph, tmp_path / "a.onnx", recipe=Recipe(attention="packed", rows="flat"))
    second = export_onnx(tiny_graph, tmp_path / "b.onnx", recipe=read_recipe(first.path))
    assert first.path.read_bytes() == second.path.read_bytes()


@pytest.mark.parametrize("bad", [{"dtype": "float8"}, {"opset": 18}, {"target": "gpu"}])
def test_unusable_arguments_are_refused(tiny_graph: fx.GraphModule, tmp_path: Path, bad: dict) -> None:
    with pytest.raises(ValueError, match=str(next(iter(bad.values())))):
        export_onnx(tiny_graph, tmp_path / "m.onnx", **bad)


def test_half_precision_is_refused_for_the_cpu(tiny_graph: fx.GraphModule, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='use dtype="int8"'):
        export_onnx(tiny_graph, tmp_path / "m.onnx", dtype="float16")
    with pytest.raises(ValueError, match="calibration inputs are for"):
        export_onnx(tiny_graph, tmp_path / "m.onnx", calibration=[{"input_ids": torch.ones(2, 5)}])


def test_untraced_model_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"passes\.trace"):
        export_onnx(nn.Linear(2, 2), tmp_path / "m.onnx")


def test_wrong_file_is_refused_and_the_old_one_stays(
    tiny_graph: fx.GraphModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = export_onnx(tiny_graph, tmp_path / "m.onnx").path
    before = path.read_bytes()

    def corrupt(recipe: Recipe, model: ir.Model) -> list[str]:
        gelu = next(n for n in model.graph if n.op_type == "Gelu")
        gelu.op_type = "Relu"
        gelu.attributes.clear()
        return []

    monkeypatch.setattr(emit_onnx.recipes, "apply", corrupt)
    with pytest.raises(ExportError, match="differs from the graph"):
        export_onnx(tiny_graph, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_large_weights_go_beside_the_file_and_a_smaller_export_removes_them(
    tiny_graph: fx.GraphModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = torch.randint(1, 50, (2, 5))
    feed = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    path = tmp_path / "m.onnx"
    with monkeypatch.context() as patch:
        patch.setattr(storage, "EXTERNAL_ABOVE", 100)
        export_onnx(tiny_graph, path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    apart = run(path, **feed)
    export_onnx(tiny_graph, path)
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]
    np.testing.assert_allclose(run(path, **feed)[0], apart[0], atol=1e-6)


def test_positional_inputs_and_a_plain_tensor_output(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 10), nn.GELU(), nn.Linear(10, 3)).eval()
    graph = passes.trace(model, torch.randn(4, 6))
    written = export_onnx(graph, tmp_path / "mlp.onnx", recipe=default_recipe("cpu"))
    assert written.agreement is not None
    assert written.agreement.scale > 0
    assert export_onnx(graph, tmp_path / "plain.onnx", recipe=PLAIN).passes == ()


def test_one_key_head_broadcast_over_the_queries_is_exported(tmp_path: Path) -> None:
    class Broadcast(torch.nn.Module):
        def forward(self, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
            y = torch.nn.functional.scaled_dot_product_attention(q, k, k)
            return y.transpose(1, 2).reshape(y.shape[0], y.shape[2], -1)

    graph = passes.trace(Broadcast(), (torch.randn(2, 4, 5, 8), torch.randn(2, 1, 5, 8)))
    agreement = export_onnx(graph, tmp_path / "model.onnx").agreement
    assert agreement is not None
    assert agreement.max_abs_diff <= 1e-5


def test_a_file_of_a_shrunk_model_carries_its_certificate(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 10), nn.GELU(), nn.Linear(10, 3)).eval()
    with torch.no_grad():
        model[0].weight[:4] = 0
    result = passes.shrink(passes.trace(model, torch.randn(4, 6)))
    for source, expected in ((result, result.certificate), (result.graph_module, None)):
        export_onnx(source, tmp_path / "mlp.onnx", check=False)
        text = ir.load(tmp_path / "mlp.onnx").metadata_props.get("bpc.certificate")
        assert text == (expected and expected.to_json())


def test_an_axis_that_holds_at_one_size_alone_is_static(
    tiny_graph: fx.GraphModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bake_length(recipe: Recipe, model: ir.Model) -> list[str]:
        norm = next(n for n in model.graph if n.op_type == "LayerNormalization")
        zeros = add_initializer(model.graph, "baked", np.zeros((1, 7, 1), np.float32))
        norm.replace_input_with(0, insert(norm, "Add", [norm.inputs[0], zeros], like=norm.inputs[0]))
        return []

    monkeypatch.setattr(emit_onnx.recipes, "apply", bake_length)
    written = export_onnx(tiny_graph, tmp_path / "m.onnx")
    assert written.axes == {"batch": 2}
    assert written.agreement is not None
    assert list(written.agreement.fixed) == ["sequence"]
    session = onnxruntime.InferenceSession(written.path, providers=["CPUExecutionProvider"])
    assert [value.shape for value in session.get_inputs()] == [["batch", 7], ["batch", 7]]
    ids = np.ones((3, 9), np.int64)
    with pytest.raises(Exception, match="Expected: 7"):
        session.run(None, {"input_ids": ids, "attention_mask": ids})
