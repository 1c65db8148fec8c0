"""Every rule against brute force, with each operand computed from the data, in turn and all at once.

What is called constant is that number; what is called dead moves no output; and the small graph, with its ties and
resized literals, computes what the masked eager model does.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

import passes
from passes.analysis.constants import Constants
from passes.analysis.liveness import Liveness
from passes.ir.manager import PassManager
from passes.ops.table import RULES
from passes.rewrite.apply_masks import ApplyMasks
from tests.passes.ops.brute import SIZES, Disturbed, Probe, example_input, masked, masks
from tests.passes.ops.examples import EXAMPLES, Example

CASES = [(target, example) for target, examples in EXAMPLES.items() for example in examples]
NAMES = [f"{target}-{n}" for target, examples in EXAMPLES.items() for n in range(len(examples))]


def check(probe: Probe, graph: torch.fx.GraphModule, seed: int, only: int | None = None) -> None:
    given = masks(probe, seed, only)
    reference = masked(probe, given)
    numbers = PassManager((ApplyMasks(given),)).run(graph).graph_module
    constants = Constants(numbers)
    liveness = Liveness(constants)
    small = passes.shrink(graph, given, verify=False)
    for n, (batch, length) in enumerate(SIZES):
        x = example_input(n, batch, length)
        with torch.no_grad():
            expected = reference(x)
            plain = Disturbed(numbers, constants, None)
            torch.testing.assert_close(plain.run(x), expected, rtol=1e-9, atol=1e-9, msg="the masked graph")
            assert not plain.wrong
            moved = Disturbed(numbers, constants, liveness).run(x)
            torch.testing.assert_close(moved, expected, rtol=1e-9, atol=1e-9, msg="something dead was read")
            torch.testing.assert_close(small.graph_module(x), expected, rtol=1e-9, atol=1e-9, msg="the small graph")


@pytest.mark.parametrize(("target", "example"), CASES, ids=NAMES)
def test_facts_and_sizes_agree_with_brute_force(target: Any, example: Example) -> None:
    every = tuple(range(len(example.operands)))
    probe = Probe(example, every).eval()
    graph = passes.trace(probe, example_input(0, *SIZES[0]))
    for seed in range(3):
        check(probe, graph, seed)
    for k in every:
        check(probe, graph, 10 + k, only=k)
    if len(every) > 1:  # as models have them: the first computed, the others parameters
        probe = Probe(example, (0,)).eval()
        graph = passes.trace(probe, example_input(0, *SIZES[0]))
        check(probe, graph, 20)


def test_every_operator_of_the_table_has_an_example() -> None:
    missing = [str(target) for target in RULES if target not in EXAMPLES]
    assert not missing, f"tests/passes/ops/examples.py has no example of {', '.join(missing)}"
