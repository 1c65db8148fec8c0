"""Recipes: which form of each part of the graph a target gets, and the list of graph passes that makes it.

A recipe is data: it is stored in the file (metadata key ``bpc.recipe``), printed, compared and handed back to
`export_onnx` to repeat an export elsewhere.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

import onnx_ir as ir
from onnx_ir.passes import InPlacePass

from bpc.emit.attention import MultiHeadAttention, PackedAttention
from bpc.emit.fusions import TransformersFusions
from bpc.emit.linear import MergeSiblings
from bpc.emit.norms import BiasIntoNorm, ResidualAsDifference
from bpc.emit.products import WriteOutAttention
from bpc.emit.rows import FlattenRows

Target = Literal["cpu", "cuda"]
Attention = Literal["exported", "multi-head", "packed"]
Projections = Literal["separate", "merged"]
Residual = Literal["add", "difference"]
Biases = Literal["exported", "norms"]
Rows = Literal["batched", "flat"]
Fusions = Literal["own", "transformers"]


@dataclass(frozen=True)
class Recipe:
    """One form for each part of the graph. The defaults of each target are in `default_recipe`."""

    attention: Attention = "exported"
    projections: Projections = "separate"
    residual: Residual = "add"
    biases: Biases = "exported"
    rows: Rows = "batched"
    fusions: Fusions = "own"

    def __post_init__(self) -> None:
        for part, choices in CHOICES.items():
            if getattr(self, part) not in choices:
                raise ValueError(f"recipe: {part}={getattr(self, part)!r} is not one of {', '.join(choices)}")

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The recipe `to_json` wrote. Raises ValueError for unknown parts or forms."""
        data = json.loads(text)
        unknown = set(data) - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"recipe: unknown part {', '.join(sorted(unknown))}; known: {', '.join(CHOICES)}")
        return cls(**data)

    def variants(self, part: str) -> list[Recipe]:
        """This recipe with every form of ``part``, itself first."""
        others = [c for c in CHOICES[part] if c != getattr(self, part)]
        return [self, *(Recipe(**{**asdict(self), part: choice}) for choice in others)]


CHOICES: dict[str, tuple[str, ...]] = {
    "attention": get_args(Attention),
    "projections": get_args(Projections),
    "residual": get_args(Residual),
    "biases": get_args(Biases),
    "rows": get_args(Rows),
    "fusions": get_args(Fusions),
}

# What plain torch.onnx.export writes, attention in products and a softmax (as it does below opset 23). The baseline of
# the benchmarks.
PLAIN = Recipe()


def default_recipe(target: Target, dtype: str = "float32") -> Recipe:
    """The recipe measured best for a target (docs/benchmarks-onnx.md has the measurements)."""
    if target == "cuda":
        # The CUDA provider's fused kernels (flash attention, skip norms) are the fast ones there.
        return Recipe(attention="multi-head", projections="merged", residual="add", rows="batched")
    # int8 products add their bias themselves, and their activations' ranges are better left as they were.
    return Recipe(attention="multi-head", residual="difference", biases="exported" if dtype == "int8" else "norms")


def pipeline(recipe: Recipe) -> tuple[InPlacePass, ...]:
    """The graph passes of a recipe, in order. Each pass leaves alone what it does not recognise."""
    steps: tuple[tuple[bool, InPlacePass], ...] = (
        # First: it looks for the forms torch.onnx writes.
        (recipe.fusions == "transformers", TransformersFusions()),
        # Saves a pass over the activations per residual.
        (recipe.biases == "norms", BiasIntoNorm()),
        # Before the attention is rewritten: packing reads the projections itself.
        (recipe.attention == "packed", PackedAttention()),
        # One product for Q, K and V instead of three: fewer, larger kernels; pays where kernels are small.
        (recipe.projections == "merged", MergeSiblings()),
        # Four transposes of the whole activation per layer disappear into the attention kernel.
        (recipe.attention == "multi-head", MultiHeadAttention()),
        # Whatever attention is left: opset 23's operator is none that other tools know.
        (True, WriteOutAttention()),
        # Keeps ONNX Runtime's SkipLayerNormalization (slow on CPU) from being fused; reads the biases first moved.
        (recipe.residual == "difference", ResidualAsDifference()),
        # Last, once the attention reads and writes (B, S, C): everything between two attentions becomes 2-D.
        (recipe.rows == "flat", FlattenRows()),
    )
    return tuple(step for wanted, step in steps if wanted)


def apply(recipe: Recipe, model: ir.Model) -> list[str]:
    """Run a recipe's passes on ``model`` in place; the names of those that changed something."""
    changed = []
    for step in pipeline(recipe):
        if step(model).modified:
            changed.append(type(step).__name__)
    model.graph.sort()
    return changed
