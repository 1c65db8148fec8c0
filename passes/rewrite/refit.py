"""linear(x, W, b)  ->  linear(x, W', b'), where W' reads only some of the input features and b' carries the rest.

Removing input features u of a linear (the columns of a dead head or FFN dim) changes its output by -x_u W_uᵀ. What the
kept features S can say of it is put into their columns: with X the inputs seen on calibration data (tokens x features)
and Y the outputs wanted there,

    W' = argmin ‖X_S W'ᵀ + b' - Y‖² + ρ‖W' - W_S‖²     that is     (G + ρI) W'ᵀ = C + ρ W_Sᵀ,   b' = ȳ - W' x̄_S

G = (X_S - x̄_S)ᵀ(X_S - x̄_S) and C = (X_S - x̄_S)ᵀ(Y - ȳ); for a linear without bias x̄ = ȳ = 0. ρ keeps what the data do
not determine where it was. Only sums over tokens enter (`Moments`), so the data may be as long as they like.

Preconditions: each weight is one that linears of the graph multiply by; moments fit its features.
Postconditions: columns outside S are exactly 0, so that their units are dead; nothing else of the graph changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

from passes.ir.graph import GraphTensors, copy_graph, get_attribute, set_numbers
from passes.ir.manager import Pass, PassResult

_ROWS = 4096  # tokens multiplied at a time: products in the data's precision, sums in float64


class Moments:
    """Sums over tokens of inputs x (features) and wanted outputs y (out features), in float64.

    Attributes: ``count`` of tokens, ``inputs`` Σx, ``outputs`` Σy, ``gram`` Σxxᵀ, ``cross`` Σxyᵀ, ``power`` Σ‖y‖².
    """

    def __init__(self, features: int, out_features: int) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64)

        self.count = 0
        self.inputs, self.outputs = zeros(features), zeros(out_features)
        self.gram, self.cross = zeros(features, features), zeros(features, out_features)
        self.power = 0.0

    def add(self, x: Tensor, y: Tensor) -> None:
        """More tokens: x (tokens, features), y (tokens, out features)."""
        for inputs, outputs in zip(x.split(_ROWS), y.split(_ROWS), strict=True):
            inputs, outputs = inputs.float(), outputs.float()
            self.count += len(inputs)
            self.inputs += inputs.sum(0, dtype=torch.float64)
            self.outputs += outputs.sum(0, dtype=torch.float64)
            self.gram += inputs.T @ inputs
            self.cross += inputs.T @ outputs
            self.power += float(outputs.square().sum(dtype=torch.float64))

    def turned(self, matrix: Tensor) -> Moments:
        """The moments of ``matrix`` x and y; ``matrix`` (features, features), float64."""
        found = Moments(*self.cross.shape)
        found.count, found.outputs, found.power = self.count, self.outputs, self.power
        found.inputs, found.gram, found.cross = matrix @ self.inputs, matrix @ self.gram @ matrix.T, matrix @ self.cross
        return found

    def centred(self) -> tuple[Tensor, Tensor]:
        """(gram, cross) of x - x̄ and y - ȳ."""
        count = max(self.count, 1)
        return (
            self.gram - self.inputs.outer(self.inputs) / count,
            self.cross - self.inputs.outer(self.outputs) / count,
        )


def refit(weight: Tensor, moments: Moments, kept: Tensor, *, bias: bool, ridge: float) -> tuple[Tensor, Tensor | None]:
    """W' and b' of the module docstring, in float64.

    Args:
        weight: (out, features). kept: bool (features). bias: whether the linear has one.
        ridge: ρ as a share of the mean of x².

    Returns (out, features), zero where not kept, and (out) or None.
    """
    weight = weight.double()
    gram, cross = moments.centred() if bias else (moments.gram, moments.cross)
    result = torch.zeros_like(weight)
    if kept.any() and moments.count:
        penalty = ridge * float(moments.gram.diagonal().mean()) + torch.finfo(torch.float64).tiny
        system = gram[kept][:, kept] + penalty * torch.eye(int(kept.sum()), dtype=torch.float64)
        wanted = cross[kept] + penalty * weight[:, kept].T
        result[:, kept] = torch.linalg.solve(system, wanted).T
    if not bias:
        return result, None
    count = max(moments.count, 1)
    return result, (moments.outputs - result @ moments.inputs) / count


@dataclass(frozen=True)
class Refitting:
    """One weight to refit: the moments of its data, ``kept`` input features (bool), ρ's share (see `refit`).

    ``bias``: the name of the bias that its linears add, if any. ``out_dim``: the stored weight's dim of the output
    features, 0 for nn.Linear, 1 for Conv1D.
    """

    moments: Moments
    kept: Tensor
    ridge: float
    bias: str | None = None
    out_dim: int = 0


@dataclass(frozen=True)
class RefitLinears(Pass):
    """``refits``: {weight name: `Refitting`}."""

    refits: Mapping[str, Refitting]
    name: str = field(default="refit-linears", init=False)

    def requires(self, graph_module: fx.GraphModule) -> None:
        read = {str(node.target) for node in graph_module.graph.nodes if node.op == "get_attr"}
        for name, refitting in self.refits.items():
            for used in (name, refitting.bias):
                if used is not None and used not in read:
                    raise ValueError(f"refit of {name!r}: the graph reads no parameter {used!r}")
            features = get_attribute(graph_module, name).shape[1 - refitting.out_dim]
            if len(refitting.kept) != features or len(refitting.moments.inputs) != features:
                raise ValueError(
                    f"refit of {name!r}: it reads {features} features; the moments are of "
                    f"{len(refitting.moments.inputs)}, and {len(refitting.kept)} are marked kept or not"
                )

    def numbers(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{name of a weight or bias: what it becomes}, as stored and in its dtype, from what they are."""
        found: dict[str, Tensor] = {}
        for name, refitting in self.refits.items():
            stored = weights[name]
            weight = stored if refitting.out_dim == 0 else stored.T
            fitted, bias = refit(
                weight, refitting.moments, refitting.kept, bias=refitting.bias is not None, ridge=refitting.ridge
            )
            found[name] = (fitted if refitting.out_dim == 0 else fitted.T).contiguous().to(stored)
            if refitting.bias is not None and bias is not None:
                found[refitting.bias] = bias.to(weights[refitting.bias])
        return found

    def run(self, graph_module: fx.GraphModule) -> PassResult:
        result = copy_graph(graph_module)
        for name, numbers in self.numbers(GraphTensors(graph_module)).items():
            set_numbers(result, name, numbers)
        return PassResult(result, bool(self.refits), {"weights": len(self.refits)})
