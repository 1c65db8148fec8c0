"""Making a failing case small: fewer steps, fewer and simpler masks, while it fails in the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from tests.fuzz.forms import Case, Outcome, judge
from tests.fuzz.program import INPUT, Program, build, live_numbers

Still = Callable[[Case], bool]


def minimise(case: Case, outcome: Outcome, attempts: int = 120) -> Case:
    """The smallest case found in ``attempts`` runs that fails with the same signature."""
    left = [attempts]

    def still(candidate: Case) -> bool:
        if left[0] <= 0:
            return False
        left[0] -= 1
        try:
            return judge(candidate).signature == outcome.signature
        except Exception:
            return False  # not a program

    while True:
        smaller = next((c for c in _smaller(case) if still(c)), None)
        if smaller is None:
            return case
        case = smaller


def _smaller(case: Case) -> Iterator[Case]:
    yield from _with_fewer_steps(case)
    yield from _with_fewer_masks(case)


def _case(case: Case, program: Program) -> Case | None:
    """The case with another program, and the masks that its weights still have."""
    try:
        shapes = {n: p.shape for n, p in build(program).named_parameters(remove_duplicate=False)}
    except Exception:
        return None
    masks = {n: m for n, m in case.masks.items() if n in shapes and shapes[n] == m.shape}
    return replace(case, program=program, masks=masks)


def _with_fewer_steps(case: Case) -> Iterator[Case]:
    program = case.program
    candidates: list[Program] = []
    live = live_numbers(program.steps, [n for n, _ in program.outputs])
    dead = [s for s in program.steps if s.number not in live]
    if dead:
        kept = tuple(s for s in program.steps if s.number in live)
        candidates.append(replace(program, steps=kept, declared=(*program.declared, *dead)))
    if len(program.outputs) > 1:
        candidates += [replace(program, outputs=(output,)) for output in program.outputs]
    else:  # the result of an earlier step
        (last, through), *_ = program.outputs
        earlier = [step.number for step in program.steps if step.number < last]
        candidates += [replace(program, outputs=((number, through),)) for number in earlier]
        candidates += [] if through else [replace(program, outputs=((last, True),))]
    for step in reversed(program.steps):
        earlier = [INPUT, *(s.number for s in program.steps if s.number < step.number)]
        same = [n for n in dict.fromkeys((*step.reads, *earlier)) if program.width(n) == step.width]
        candidates += [program.without(step.number, n) for n in same[:4]]
    for step in program.steps:  # read the input instead
        for operand in ("a", "b"):
            n = getattr(step, operand)
            if n in step.reads and n != INPUT and program.width(n) == program.width(INPUT):
                steps = tuple(replace(s, **{operand: INPUT}) if s is step else s for s in program.steps)
                candidates.append(replace(program, steps=steps))
    for candidate in candidates:
        made = _case(case, candidate)
        if made is not None:
            yield made


def _with_fewer_masks(case: Case) -> Iterator[Case]:
    if len(case.masks) > 2:
        names = list(case.masks)
        for half in (names[: len(names) // 2], names[len(names) // 2 :]):
            yield replace(case, masks={n: case.masks[n] for n in half})
    for name in case.masks:
        yield replace(case, masks={n: m for n, m in case.masks.items() if n != name})
    for name, mask in case.masks.items():
        for simpler in _simpler(mask):
            yield replace(case, masks={**case.masks, name: simpler})


def _simpler(mask: torch.Tensor) -> Iterator[torch.Tensor]:
    """Masks of rows or of columns alone, then with one row or column more kept."""
    if mask.dim() < 2:
        return
    rows = mask.flatten(1).any(1)
    columns = mask.transpose(0, 1).flatten(1).any(1)
    by_row = rows.view(-1, *[1] * (mask.dim() - 1)).expand(mask.shape).contiguous()
    by_column = columns.view(-1, *[1] * (mask.dim() - 2)).expand(mask.shape).contiguous()
    for candidate in (by_row, by_column, by_row & by_column):
        if not torch.equal(candidate, mask) and not bool(candidate.all()):
            yield candidate
    whole = torch.equal(by_row & by_column, mask)
    if not whole:
        return
    for dim, kept in ((0, rows), (1, columns)):
        gone = (~kept).nonzero().flatten().tolist()
        for index in gone if len(gone) > 1 or not bool(kept.all()) else []:
            more = kept.clone()
            more[index] = True
            other = columns if dim == 0 else rows
            a, b = (more, other) if dim == 0 else (other, more)
            made = (a.view(-1, 1) & b.view(1, -1)).view(*mask.shape[:2], *[1] * (mask.dim() - 2)).expand(mask.shape)
            if not bool(made.all()):
                yield made.contiguous()
