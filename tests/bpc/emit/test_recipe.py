from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from bpc.emit.recipe import CHOICES, PLAIN, Recipe, apply, default_recipe, pipeline


@pytest.fixture
def model(exported: ir.Model) -> ir.Model:
    return exported.clone()


def operators(model: ir.Model) -> Counter[str]:
    return Counter(f"{n.domain}.{n.op_type}".lstrip(".") for n in model.graph)


def _name(step: object) -> str:
    return type(step).__name__


ALL = [Recipe(*forms) for forms in product(*CHOICES.values()) if forms[-1] == "own"]


def logits(model: ir.Model, batch: int, length: int) -> np.ndarray:
    generator = np.random.default_rng(batch)
    ids = generator.integers(1, 50, (batch, length))
    mask = (np.arange(length) <= generator.integers(1, length, (batch, 1))).astype(np.int64)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"input_ids": ids, "attention_mask": mask})[0]


@pytest.mark.parametrize("recipe", [r for r in ALL if r != PLAIN], ids=lambda r: "-".join(vars(r).values()))
def test_every_recipe_computes_the_same_and_is_idempotent(recipe: Recipe, model: ir.Model, exported: ir.Model) -> None:
    idle = {"WriteOutAttention"} if recipe.attention != "exported" else set()  # nothing left to write out
    if recipe.attention == "packed":
        idle.add("MergeSiblings")  # nothing left to merge
    assert apply(recipe, model) == [name for name in map(_name, pipeline(recipe)) if name not in idle]
    for batch, length in ((1, 9), (3, 4)):
        expected = logits(exported, batch, length)
        assert np.abs(expected).max() > 0.5
        np.testing.assert_allclose(logits(model, batch, length), expected, atol=2e-5)
    before = operators(model)
    assert apply(recipe, model) == []
    assert operators(model) == before


@pytest.mark.parametrize("attention", ["exported", "multi-head"])
def test_transformers_fusions_compute_the_same(attention: str, model: ir.Model, exported: ir.Model) -> None:
    recipe = Recipe(attention=attention, fusions="transformers")  # type: ignore[arg-type]
    assert "TransformersFusions" in apply(recipe, model)
    np.testing.assert_allclose(logits(model, 3, 4), logits(exported, 3, 4), atol=2e-5)
    assert operators(model)["com.microsoft.SkipLayerNormalization"] == 4


def test_default_forms(model: ir.Model) -> None:
    before = operators(model)
    assert apply(default_recipe("cpu"), model) == ["BiasIntoNorm", "MultiHeadAttention", "ResidualAsDifference"]
    after = operators(model)
    assert (before["Transpose"], after["Transpose"]) == (8, 0)
    assert after["com.microsoft.MultiHeadAttention"] == 2
    assert (after["Sub"] - before["Sub"], after["Sum"]) == (4, 1)  # two residuals a layer; embeddings have no product
    assert before["Add"] - after["Add"] == 4 + 5  # the biases of four projections, five residuals


def test_packing_takes_the_projections(model: ir.Model) -> None:
    before = operators(model)
    apply(Recipe(attention="packed"), model)
    assert operators(model)["com.microsoft.Attention"] == 2
    assert operators(model)["MatMul"] == before["MatMul"] - 6


def test_flat_rows_leave_no_batched_linear(model: ir.Model) -> None:
    apply(Recipe(attention="multi-head", rows="flat"), model)
    for node in model.graph:
        if node.op_type in ("MatMul", "LayerNormalization", "Gelu"):
            assert len(node.outputs[0].shape) == 2
    assert operators(model)["Reshape"] < 20


def test_unknown_form_is_named() -> None:
    with pytest.raises(ValueError, match="attention='fast' is not one of exported, multi-head"):
        Recipe(attention="fast")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown part colour"):
        Recipe.from_json('{"colour": "red"}')
