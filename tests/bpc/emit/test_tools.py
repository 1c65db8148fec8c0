"""Exported files in other tools' hands: shape inference, pre-processing, slimming, quantization."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import onnxslim
import pytest
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference
from torch import fx

import passes
from bpc.emit.likeness import Likeness
from bpc.emit.onnx import export_onnx
from bpc.emit.recipe import PLAIN
from tests.passes.families import FAMILIES, make
from tests.passes.family_masks import draw

pytestmark = pytest.mark.filterwarnings("ignore")

RECIPES: dict[str, dict[str, Any]] = {
    "fast": {},
    "plain": {"recipe": PLAIN},
    "int8": {"dtype": "int8"},
    "int4": {"dtype": "int8", "embeddings": "int4", "storage": "float16"},  # its tables; sizes are lowered to theirs
    "fp16": {"dtype": "float16", "target": "cuda"},
}
SPACES = {"dead layers": "layer", "uneven heads": "heads"}  # kinds of masks in the suite
OTHERS = ("gpt2", "llama", "t5", "vit", "swin", "modernbert")

Feed = dict[str, np.ndarray]


@functools.cache
def small(family: str, space: str) -> tuple[fx.GraphModule, Feed, list[np.ndarray]]:
    """A small graph, an input, and what the masked model makes of it."""
    member = FAMILIES[family]
    model, inputs = make(member, member.forms[0], torch.float32)
    masks = draw(SPACES[space], member, {n: p.detach() for n, p in model.named_parameters()})
    graph = passes.shrink(passes.trace(model, inputs), masks, verify=False).graph_module
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)
        outputs = model(**inputs)
    tensors = [t for t in torch.utils._pytree.tree_leaves(outputs) if isinstance(t, torch.Tensor)]
    feed = {name: value.numpy() for name, value in inputs.items() if isinstance(value, torch.Tensor)}
    return graph, feed, [t.numpy() for t in tensors if t.is_floating_point()]


def share(file: Path | onnx.ModelProto, feed: Feed, expected: list[np.ndarray]) -> float:
    source = file if isinstance(file, Path) else file.SerializeToString()
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    actual = session.run(None, {value.name: feed[value.name] for value in session.get_inputs()})
    worst = 0.0
    for a, b in zip(expected, actual, strict=False):
        likeness = Likeness()
        likeness.add(a.reshape(-1, a.shape[-1]).ravel(), b.astype(np.float32).ravel())
        worst = max(worst, likeness.share)
    return worst


class Once(CalibrationDataReader):
    def __init__(self, feed: Feed) -> None:
        self.feeds = [feed]

    def get_next(self) -> Feed | None:
        return self.feeds.pop() if self.feeds else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """BERT with every recipe in every space; other families with two recipes each, unless --every-pair."""
    every = metafunc.config.getoption("--every-pair")
    cases = [
        pytest.param(family, recipe, space, marks=[pytest.mark.slow] if family in OTHERS else [])
        for i, family in enumerate(("bert", *OTHERS))
        for j, recipe in enumerate(RECIPES)
        for k, space in enumerate(SPACES)
        if every or family == "bert" or ((i + j) % len(RECIPES) < 2 and (i + j + k) % 2)
    ]
    metafunc.parametrize(("family", "recipe", "space"), cases)


def test_other_tools_take_the_file(
    family: str,
    recipe: str,
    space: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.chdir(tmp_path)  # symbolic shape inference leaves files behind
    for name, size in {"embeddings.SMALL": 100, "embeddings.LARGE": 100, "stored._FEW": 200}.items():
        monkeypatch.setattr(f"bpc.emit.{name}", size)
    graph, feed, expected = small(family, space)
    path = export_onnx(graph, tmp_path / "model.onnx", **RECIPES[recipe]).path
    model = onnx.load(path)
    names = {weight.name for weight in model.graph.initializer}
    assert not names & {info.name for info in model.graph.value_info}  # a shape that could go stale
    assert not [n for n in model.graph.node if (n.op_type, n.domain) == ("Attention", "")]
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    SymbolicShapeInference.infer_shapes(onnx.load(path))
    close = {"int8": 0.5, "int4": 0.5, "fp16": 0.05}.get(recipe, 1e-3)
    worst = share(path, feed, expected)
    print(f"{family}, {recipe}, {space}: {worst:.1e} of what the outputs vary by")  # pytest -rP shows it
    assert worst < close
    quant_pre_process(path, tmp_path / "ready.onnx")
    assert share(tmp_path / "ready.onnx", feed, expected) < close
    assert share(onnxslim.slim(onnx.load(path)), feed, expected) < close
    if recipe not in ("fast", "plain"):
        return  # the quantizers take float32 alone (docs/decisions/0005-files-for-other-tools.md)
    both = list(itertools.product((path, tmp_path / "ready.onnx"), (False, True)))
    for source, per_channel in both if request.config.getoption("--every-pair") else both[::3]:
        quantize_dynamic(source, tmp_path / "q.onnx", per_channel=per_channel, weight_type=QuantType.QInt8)
        assert 1e-4 < share(tmp_path / "q.onnx", feed, expected) < 0.5
        quantize_static(source, tmp_path / "q.onnx", Once(feed), per_channel=per_channel)
        assert 1e-4 < share(tmp_path / "q.onnx", feed, expected) < 0.7
