"""Every rule against brute force, with each operand computed from the data, in turn and all at once.

What is called constant is that number; what is called dead moves no output; and the small graph, with its ties and
resized literals, computes what the masked eager model does. tests/golden/operands.json holds how sharp the rules are:
a rule that forgets what it could say costs size, not exactness.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import passes
from passes.analysis.constants import Constants
from passes.analysis.liveness import Liveness
from passes.ir.manager import PassManager
from passes.ir.sizes import tensor_inputs, tensor_of
from passes.ops.table import RULES
from passes.rewrite.apply_masks import ApplyMasks
from tests.passes.ops.brute import SIZES, Disturbed, Probe, example_input, masked, masks
from tests.passes.ops.examples import EXAMPLES, Example

CASES = [(t, example, f"{t}-{n}") for t, examples in EXAMPLES.items() for n, example in enumerate(examples)]
SHARP = Path(__file__).parents[2] / "golden" / "operands.json"  # {case: per mask, [constants, dead, parameters]}


def check(probe: Probe, graph: torch.fx.GraphModule, target: Any, seed: int, only: int | None = None) -> list[int]:
    """Holds the facts and the small graph against brute force. Returns how sharp they are: how many entries of the
    operator's result are known to be constant, how many of its operands' to be dead, and the parameters left."""
    given = masks(probe, seed, only)
    reference = masked(probe, given)
    numbers = PassManager((ApplyMasks(given),)).run(graph).graph_module
    constants = Constants(numbers)
    liveness = Liveness(constants)
    small = passes.shrink(graph, given, verify=False)
    assert not constants.failures, "a rule failed and was replaced by the conservative default"
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
    nodes = [node for node in numbers.graph.nodes if node.target is target and tensor_of(node) is not None]
    known = sum(int(constants.fact(node).const.sum()) for node in nodes)
    dead = sum(int((~liveness.of(operand)).sum()) for node in nodes for operand in tensor_inputs(node))
    return [known, dead, small.report.parameters_after]


@pytest.mark.parametrize(("target", "example", "name"), CASES, ids=[name for *_, name in CASES])
def test_facts_and_sizes_agree_with_brute_force(
    target: Any, example: Example, name: str, request: pytest.FixtureRequest
) -> None:
    every = tuple(range(len(example.operands)))
    probe = Probe(example, every).eval()
    graph = passes.trace(probe, example_input(0, *SIZES[0]))
    sharp = [check(probe, graph, target, seed) for seed in range(3)]
    if len(every) > 1:
        sharp += [check(probe, graph, target, 10 + k, only=k) for k in every]
        probe = Probe(example, (0,)).eval()  # as models have them: the first computed, the others parameters
        graph = passes.trace(probe, example_input(0, *SIZES[0]))
        sharp.append(check(probe, graph, target, 20))
    if request.config.getoption("--update-golden"):
        _write(name, sharp)
    assert sharp == json.loads(SHARP.read_text())[name], "less sharp, or sharper: if it is meant, --update-golden"


def _write(name: str, sharp: list[list[int]]) -> None:
    known = json.loads(SHARP.read_text()) if SHARP.exists() else {}
    known[name] = sharp
    lines = [f"{json.dumps(key)}: {json.dumps(known[key])}" for key in sorted(known)]
    SHARP.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def test_every_operator_of_the_table_has_an_example() -> None:
    missing = [str(target) for target in RULES if target not in EXAMPLES]
    assert not missing, f"tests/passes/ops/examples.py has no example of {', '.join(missing)}"
