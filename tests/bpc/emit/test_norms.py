from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import passes
from bpc.emit.axes import dynamic_axes
from bpc.emit.norms import BiasIntoNorm, ResidualAsDifference
from bpc.emit.onnx import to_onnx
from passes.frontend.trace import exported_program

X = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))


class Blocks(nn.Module):
    """Two residual layers; ``inner`` is what stands between a layer's product and the residual addition."""

    def __init__(
        self, *, pre: bool = False, inner: Callable[[Tensor], Tensor] = lambda y: y, bias: float = 0.5
    ) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.pre, self.inner = pre, inner
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(3))
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)) for _ in range(2))
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.normal_(0.0, bias if name.startswith("layers") and name.endswith("2.bias") else 0.5)

    def forward(self, x: Tensor) -> Tensor:
        if not self.pre:
            x = self.norms[2](x)
        for norm, layer in zip(self.norms, self.layers, strict=False):
            x = x + self.inner(layer(norm(x))) if self.pre else norm(x + self.inner(layer(x)))
        return self.norms[2](x) if self.pre else x


class OpenStream(Blocks):
    """The normalised stream is an output too."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        normal = self.norms[2](x)
        return normal, self.norms[0](normal + self.layers[0](normal))


def onnx_of(module: nn.Module) -> ir.Model:
    graph = passes.trace(module.eval(), X)
    program = exported_program(graph)
    return to_onnx(graph, program, dynamic_axes(graph, program))


def run(model: ir.Model) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # its fusions round too
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: X.numpy()})


def operators(model: ir.Model) -> Counter[str]:
    return Counter(n.op_type for n in model.graph)


@pytest.mark.parametrize("pre", [False, True])
@pytest.mark.parametrize(
    "inner",
    [lambda y: y, lambda y: y.transpose(1, 2).reshape(2, 4, 2, -1).flatten(1, 2).transpose(1, 2), lambda y: y * 0.7],
    ids=["product", "moved", "scaled"],
)
def test_a_residual_as_difference_is_the_same_to_the_bit(pre: bool, inner: Callable[[Tensor], Tensor]) -> None:
    model = onnx_of(Blocks(pre=pre, inner=inner))
    (before,) = run(model)
    residuals = operators(model)["Add"] - 4
    assert ResidualAsDifference()(model).modified
    assert operators(model)["Sub"] == residuals == 2
    np.testing.assert_array_equal(run(model)[0], before)
    assert not ResidualAsDifference()(model).modified


def test_a_residual_without_constants_becomes_a_sum() -> None:
    model = onnx_of(Blocks(inner=torch.tanh))
    (before,) = run(model)
    ResidualAsDifference()(model)
    assert (operators(model)["Sub"], operators(model)["Sum"]) == (0, 2)
    np.testing.assert_array_equal(run(model)[0], before)


def test_shared_layers_are_negated_once() -> None:
    module = Blocks()
    module.layers[1] = module.layers[0]
    model = onnx_of(module)
    (before,) = run(model)
    weights = sum(len(v.shape or ()) == 2 for v in model.graph.initializers.values())
    ResidualAsDifference()(model)
    assert sum(len(v.shape or ()) == 2 for v in model.graph.initializers.values()) == weights == 2
    np.testing.assert_array_equal(run(model)[0], before)


def test_biases_of_post_norm_layers_move_into_the_norms() -> None:
    model = onnx_of(Blocks())
    (before,) = run(model)
    assert BiasIntoNorm()(model).modified
    assert operators(model)["Add"] == 2 + 2  # residuals, biases of the first products
    np.testing.assert_allclose(run(model)[0], before, atol=2e-6)
    assert not BiasIntoNorm()(model).modified


@pytest.mark.parametrize(
    "module", [Blocks(pre=True), Blocks(bias=1000.0), OpenStream()], ids=["pre-norm", "large", "read elsewhere"]
)
def test_biases_stay_where_moving_them_is_not_exact(module: nn.Module) -> None:
    assert not BiasIntoNorm()(onnx_of(module)).modified
