"""einsum and outer as products: the same numbers, and equations that stay as they are."""

from __future__ import annotations

import pytest
import torch

from passes.frontend.einsum import einsum_to_matmul, outer_to_product
from tests.passes.sketch import Sketch

aten = torch.ops.aten
SIZES = {"b": 2, "h": 3, "q": 4, "k": 5, "d": 6, "e": 1}


def rewritten(equation: str, **sizes: int) -> tuple[set[object], torch.Tensor, torch.Tensor]:
    """(operators of the rewritten graph, its result, einsum's)."""
    sketch, letters = Sketch(), SIZES | sizes
    sides = equation.replace(" ", "").partition("->")[0].replace("...", "b").split(",")
    shapes = [[letters[c] for c in side] for side in sides]
    operands = [sketch.input(*shape, name=f"x{i}") for i, shape in enumerate(shapes)]
    node = sketch.call(aten.einsum.default, equation, operands)
    module = sketch.done(node)
    einsum_to_matmul(sketch.graph, node)
    module.recompile()
    generator = torch.Generator().manual_seed(0)
    numbers = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    targets = {n.target for n in module.graph.nodes if n.op == "call_function"}
    return targets, module(*numbers)[0], torch.einsum(equation, *numbers)


@pytest.mark.parametrize(
    "equation",
    [
        "bqd,bkd->bqk",
        "bhqk, bkhd -> bqhd",
        "bqd,hd->bqh",
        "bqhd,hd->bq",
        "hd,bqhd->qb",
        "bd,bd->b",
        "q,k->kq",
        "bqk->kbq",
    ],
)
def test_products_and_permutations_give_the_same_numbers(equation: str) -> None:
    targets, found, expected = rewritten(equation)
    assert aten.einsum.default not in targets
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "equation", ["bqq->bq", "bqd,bkd->bq", "...qd,...kd->...qk", "bq,bq", "bqd->bq", "bq,qk,kd->bd"]
)
def test_other_equations_stay(equation: str) -> None:
    targets, found, expected = rewritten(equation)
    assert targets == {aten.einsum.default}
    torch.testing.assert_close(found, expected)


def test_a_letter_of_two_sizes_stays() -> None:
    sketch = Sketch()
    node = sketch.call(aten.einsum.default, "bd,kd->bk", [sketch.input(2, 1), sketch.input(3, 6, name="y")])
    module = sketch.done(node)
    einsum_to_matmul(sketch.graph, node)
    assert node in module.graph.nodes


def test_outer_is_a_broadcast_product() -> None:
    sketch = Sketch()
    node = sketch.call(aten.outer.default, sketch.input("b"), sketch.input(3, name="y"))
    module = sketch.done(node)
    outer_to_product(sketch.graph, node)
    module.recompile()
    a, b = torch.arange(4.0), torch.arange(3.0)
    assert torch.equal(module(a, b)[0], torch.outer(a, b))
