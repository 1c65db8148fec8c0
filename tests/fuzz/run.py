"""Cases by number, and what is said of each."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import torch
import torch._dynamo.config

from tests.fuzz.blame import guilty_step
from tests.fuzz.draw import draw_masks, draw_program, program_of
from tests.fuzz.forms import Case, Outcome, judge
from tests.fuzz.minimise import minimise
from tests.fuzz.operators import TEMPLATES
from tests.fuzz.program import Program, build
from tests.fuzz.reproduce import node_count, script

ALIKE = 3  # failures of one signature that are made small by one process


@dataclass(frozen=True)
class Report:
    seed: int
    tally: Counter[str]
    key: str = ""  # the kind of failure, the guilty pass and the operators that it takes
    failure: str = ""  # what to print
    case: Case | None = field(default=None, repr=False)


def case_of(seed: int, *, verify: bool | None = None, onnx: bool | None = None) -> Case:
    """The case of a number: a program and masks; every fourth is verified, every 25th exported, a third read zeros."""
    picks = random.Random(seed)
    program = draw_program(seed)
    zeros, verified, exported = picks.random() < 0.33, picks.random() < 0.25, picks.random() < 0.04
    return _case(
        program,
        seed,
        zeros=zeros,
        verify=verified if verify is None else verify,
        onnx=exported if onnx is None else onnx,
    )


def _case(program: Program, seed: int, **how: bool) -> Case:
    masks = draw_masks(build(program), seed)
    sources = [s.source for s in program.steps]
    return Case(program, masks, coarse=max(s.coarse for s in sources), random=any(s.random for s in sources), **how)


def run_range(seed: int, count: int, until: float = float("inf"), *, quick: bool = False) -> Iterator[Report]:
    """The cases ``seed`` … ``seed + count - 1``, until the clock (`time.time`) says ``until``."""
    return _run(((number, lambda number=number: case_of(number)) for number in range(seed, seed + count)), until, quick)


def run_templates(seed: int, until: float = float("inf"), *, named: str = "", quick: bool = False) -> Iterator[Report]:
    """Every operator whose name holds ``named``, on its own between two linears."""
    names = [name for name in TEMPLATES if named in name]
    makes = ((seed, lambda name=name: _case(program_of(name, seed), seed, zeros=False, verify=True)) for name in names)
    return _run(makes, until, quick)


def _run(makes: Iterable[tuple[int, Callable[[], Case]]], until: float, quick: bool) -> Iterator[Report]:
    torch.set_num_threads(1)
    torch._dynamo.config.fake_tensor_cache_enabled = False  # tiny graphs hardly repeat an operator
    often = Counter[tuple[str, str, str]]()
    for number, make in makes:
        if time.time() > until:
            return
        report = run_case(make(), number, often, quick=quick)
        yield report


def run_case(case: Case, seed: int, often: Counter[tuple[str, str, str]], *, quick: bool = False) -> Report:
    """Judge a case; where it fails make it small, unless many (``often``) failed alike before."""
    outcome = judge(case)
    tally = Counter([outcome.kind, *dict.fromkeys(outcome.notes), *(["shrunk"] if outcome.shrunk else [])])
    if outcome.kind == "refused":
        tally[f"refused: {(outcome.detail.splitlines() or [''])[0][:90]}"] += 1
    if not outcome.failed:
        return Report(seed, tally)
    often[outcome.signature] += 1
    if quick or often[outcome.signature] > ALIKE:
        names = " + ".join(s.template.replace("\n", "; ") for s in case.program.steps)
        return Report(seed, tally, " ".join(outcome.signature), f"seed {seed}: {outcome}\n    of {names}", case)
    small = minimise(case, outcome)
    return Report(seed, tally, *describe(small, judge(small), seed), small)


def describe(case: Case, outcome: Outcome, seed: int) -> tuple[str, str]:
    """(the kind of failure in one line, all about it)."""
    guilty = guilty_step(replace(case, verify=False))
    names = sorted({s.template.replace("\n", "; ") for s in case.program.steps if s.template != "layers: linear"})
    where = f" [{outcome.detail.splitlines()[0]}]" if outcome.kind in ("foreign", "fault") else ""
    key = f"{outcome.kind} in {outcome.form}{where}, guilty {guilty.split(':')[0]}: {' + '.join(names)[:160]}"
    rule = "-" * 100
    head = f"seed {seed}: {key}\n{node_count(case)} nodes; {outcome.detail}\nguilty: {guilty}"
    return key, f"{rule}\n{head}\n{script(case)}\n{rule}"
