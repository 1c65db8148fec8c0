"""Half-precision models are exported in the precision that is asked for: by default in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel, ViTConfig, ViTModel

import passes
from bpc.emit.check import ExportError
from bpc.emit.onnx import export_onnx
from bpc.emit.wide import in_float32

HALVES = [torch.float16, torch.bfloat16]
IDS = torch.randint(3, 60, (2, 9), generator=torch.Generator().manual_seed(0))
PADDED = torch.ones_like(IDS).index_fill(1, torch.tensor([0, 1]), 0)


def _model(family: str) -> tuple[PreTrainedModel, dict[str, torch.Tensor | bool]]:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "num_hidden_layers": 2}
    if family == "llama":
        config = LlamaConfig(vocab_size=64, num_key_value_heads=2, tie_word_embeddings=True, **sizes)
        return LlamaForCausalLM(config).eval(), {"input_ids": IDS, "attention_mask": PADDED, "use_cache": False}
    if family == "bert":
        return BertModel(BertConfig(vocab_size=64, **sizes)).eval(), {
            "input_ids": IDS,
            "attention_mask": PADDED.flip(1),
        }
    model = ViTModel(ViTConfig(image_size=16, patch_size=4, **sizes)).eval()
    return model, {"pixel_values": torch.randn(2, 3, 16, 16)}


@pytest.mark.parametrize("family", ["llama", "bert", "vit"])
@pytest.mark.parametrize("dtype", HALVES)
def test_a_half_model_becomes_a_float32_file(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """The file computes what the same weights compute in float32: closer than the half model itself does."""
    model, given = _model(family)
    model = model.to(dtype)
    halves = {k: v.to(dtype) if isinstance(v, torch.Tensor) and v.is_floating_point() else v for k, v in given.items()}
    export_onnx(passes.trace(model, halves), tmp_path / "model.onnx")
    stored = {i.data_type for i in onnx.load(tmp_path / "model.onnx").graph.initializer}
    assert not stored & {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    shorter = {k: v[:1] for k, v in given.items() if isinstance(v, torch.Tensor)}
    got = session.run(None, {i.name: shorter[i.name].numpy() for i in session.get_inputs()})[0]
    with torch.no_grad():
        want = model.float()(**(given | shorter))[0]
    seen = (
        np.ones(want.shape[:2], bool) if "attention_mask" not in shorter else shorter["attention_mask"].bool().numpy()
    )
    np.testing.assert_allclose(got[seen], want.numpy()[seen], rtol=0, atol=2e-5 * float(want.abs().max()))


def test_a_graph_in_float32_is_left_as_it_is() -> None:
    model, given = _model("bert")
    graph = passes.trace(model, given)
    assert in_float32(graph) is graph


def test_the_original_stays_in_half_precision() -> None:
    model, given = _model("llama")
    graph = passes.trace(model.to(torch.bfloat16), given)
    wide = in_float32(graph)
    assert {p.dtype for p in graph.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in wide.parameters()} == {torch.float32}


class Bits(nn.Module):
    """Reads the bits of a half-precision number."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.up(x)
        return y * (y.view(torch.int16) % 7)


def test_a_model_that_hangs_on_half_precision_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    graph = passes.trace(Bits().to(torch.bfloat16), torch.randn(3, 4).to(torch.bfloat16))
    with pytest.raises(ExportError, match="half precision"):
        export_onnx(graph, tmp_path / "model.onnx")
