"""80 random programs a day, from a seed that the day gives and a failure prints, and the fuzzer's own parts."""

from __future__ import annotations

import datetime
import itertools
from collections import Counter

import pytest
import torch

from passes.ir.graph import copy_graph
from passes.ir.manager import PassResult
from passes.rewrite.fold_constants import FoldConstants
from tests.fuzz.blame import guilty_step
from tests.fuzz.draw import draw_masks, draw_program, program_of
from tests.fuzz.forms import SHAPES, Case, judge, run
from tests.fuzz.minimise import minimise
from tests.fuzz.operators import TEMPLATES
from tests.fuzz.program import build, inputs
from tests.fuzz.reproduce import node_count, script
from tests.fuzz.run import run_range

CASES = 80


@pytest.mark.slow
@pytest.mark.parametrize("quarter", range(4))
def test_no_random_program_is_silently_wrong(quarter: int) -> None:
    """Every fourth is verified, every 25th also runs on ONNX Runtime."""
    cases = CASES // 4
    seed = int(datetime.date.today().strftime("%y%m%d")) * 1000 + quarter * cases
    print(f"python -m tests.fuzz --cases {cases} --seed {seed}")
    tally, failures = Counter[str](), []
    for report in run_range(seed, cases):
        tally.update(report.tally)
        if report.failure:
            failures.append(report.failure)
    print(dict(tally))
    assert not failures, "\n".join(failures)
    assert tally["ok"] > 0.7 * (tally["ok"] + tally["refused"])
    assert tally["shrunk"] > 0.2 * tally["ok"]


def test_every_template_runs_in_torch() -> None:
    for name in TEMPLATES:
        model = build(program_of(name))
        for seed, (batch, length) in enumerate(SHAPES):
            outputs = run(model, inputs(seed, batch, length))
            assert all(bool(torch.isfinite(t.double()).all()) for t in outputs), name


def test_the_same_seed_is_the_same_case() -> None:
    texts = {draw_program(7).text() for _ in range(2)}
    assert len(texts) == 1
    assert draw_program(8).text() not in texts


def _plant_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Constant folding that turns every tanh into a sigmoid."""
    right = FoldConstants.run

    def wrong(self: FoldConstants, graph_module: torch.fx.GraphModule) -> PassResult:
        result = right(self, graph_module)
        changed = copy_graph(result.graph_module)
        for node in changed.graph.nodes:
            if node.target is torch.ops.aten.tanh.default:
                node.target = torch.ops.aten.sigmoid.default
        changed.recompile()
        return PassResult(changed, True, result.facts)

    monkeypatch.setattr(FoldConstants, "run", wrong)


def test_a_planted_fault_is_found_blamed_and_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    _plant_a_fault(monkeypatch)
    programs = (draw_program(seed, 4, 5) for seed in itertools.count())
    program = next(p for p in programs if any(s.template == "pointwise: torch.tanh({a})" for s in p.steps[:-1]))
    case = Case(program, draw_masks(build(program), 0))
    outcome = judge(case)
    assert (outcome.kind, outcome.form) == ("WRONG", "small graph")
    small = minimise(case, outcome)
    assert [s.template for s in small.program.steps] == ["pointwise: torch.tanh({a})"]
    assert node_count(small) <= 2
    assert not small.masks
    assert guilty_step(small).startswith("fold-constants: output 0 differs")
    assert "torch.tanh(x)" in script(small)


def test_a_reproduction_is_a_script_that_runs(capsys: pytest.CaptureFixture[str]) -> None:
    program = program_of("pointwise: {a}.relu()")
    exec(script(Case(program, draw_masks(build(program), 3))), {})
    assert "tensor" in capsys.readouterr().out
