"""Drawing programs and masks."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import nn

from tests.fuzz.operators import FAMILIES, TEMPLATES
from tests.fuzz.program import INPUT, Program, Step
from tests.fuzz.template import WIDTH

WIDEST = 16
KINDS = {"rows": 4, "columns": 2, "both": 2, "halves": 1, "blocks": 1, "elements": 1, "all": 0.5, "none": 1}


def draw_program(seed: int, low: int = 3, high: int = 9) -> Program:
    """A program of ``low`` to ``high`` steps, of as many families as come up."""
    picks = random.Random(seed)
    steps: list[Step] = []
    count = picks.randint(low, high)
    while len(steps) < count:
        family = picks.choices(list(FAMILIES), [weight for weight, _ in FAMILIES.values()])[0]
        templates = FAMILIES[family][1]
        name = picks.choices(list(templates), [t.weight for t in templates.values()])[0]
        step = _draw_step(f"{family}: {name}", steps, picks)
        if step is not None:
            steps.append(step)
    outputs = [(steps[-1].number, picks.random() < 0.8)]
    if picks.random() < 0.2:
        outputs.append((picks.choice(steps).number, picks.random() < 0.7))
    return Program(tuple(steps), tuple(outputs))


def _draw_step(name: str, steps: list[Step], picks: random.Random) -> Step | None:
    """The template as the next step; None where it does not fit."""
    template, number = TEMPLATES[name], len(steps)
    widths = {INPUT: WIDTH} | {s.number: s.width for s in steps}
    a = picks.choice(list(widths)) if picks.random() < 0.3 else number - 1
    fitting = [n for n, width in widths.items() if template.other == "any" or width == widths[a]]
    b = picks.choice(fitting)
    environment: dict[str, Any] = {"C": widths[a], "D": widths[b]}
    environment |= {key: picks.choice(values) for key, values in template.draws.items()}
    shares = None
    if template.shares:
        others = [s for s in steps if s.template == template.shares]
        if not others:
            return None
        shared = picks.choice(others)
        shares = shared.number
        environment |= {"E": shared.environment["C"], "F": shared.width}
    if not _value(template.needs, environment):
        return None
    width = int(_value(template.out, environment))
    return Step(number, name, a, b, width, environment, shares) if 0 < width <= WIDEST else None


def _value(expression: str, environment: dict[str, Any]) -> Any:
    return eval(expression, {}, environment)


def program_of(template: str, seed: int = 0) -> Program:
    """The template between linears, whatever it needs: each operator on its own."""
    picks = random.Random(seed)
    shared = TEMPLATES[template].shares
    for width in (8, 6, 4):
        steps = [_linear(0, INPUT, WIDTH, width), _linear(1, INPUT, WIDTH, width)]
        if shared:
            steps.append(_linear(2, INPUT, WIDTH, width))
            steps.append(_linear(3, 2, width, width))
        for _ in range(20):
            step = _draw_step(template, steps, picks)
            if step is not None and INPUT not in step.reads:
                return Program((*steps, step), ((step.number, True),))
    raise ValueError(f"{template!r} does not fit any width")


def _linear(number: int, a: int, c: int, w: int) -> Step:
    return Step(number, "layers: linear", a, a, w, {"C": c, "D": c, "W": w, "bias": True})


# -------------------------------------------------------------------------------------------------------- masks


def draw_masks(model: nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """{parameter: mask} over rows, columns, blocks, elements, all or none of every weight; biases at times."""
    generator, picks = torch.Generator().manual_seed(seed), random.Random(seed)
    keep = picks.choice((0.3, 0.6, 0.8))
    masks: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if any(parameter is other for n, other in model.named_parameters() if n in masks):
            continue  # tied, and masked under another name
        mask = draw_mask(parameter.shape, keep, generator, picks)
        if mask is not None:
            masks[name] = mask
    names = dict(model.named_parameters(remove_duplicate=False))
    tied = {n: m for m in masks for n, p in names.items() if p is names[m]}
    return {n: masks[m] for n, m in tied.items()}


def draw_mask(shape: torch.Size, keep: float, generator: torch.Generator, picks: random.Random) -> torch.Tensor | None:
    mask = torch.ones(shape, dtype=torch.bool)
    if mask.dim() < 2:
        if picks.random() < 0.6 or mask.dim() == 0:
            return None
        return torch.rand(shape, generator=generator) < keep
    kind = picks.choices(list(KINDS), list(KINDS.values()))[0]
    if kind in ("rows", "both"):
        mask &= (torch.rand(shape[0], generator=generator) < keep).view(-1, *[1] * (len(shape) - 1))
    if kind in ("columns", "both"):
        mask &= (torch.rand(shape[1], generator=generator) < keep).view(-1, *[1] * (len(shape) - 2))
    if kind == "halves":
        half = (torch.arange(shape[0]) < -(-shape[0] // 2)) ^ (picks.random() < 0.5)
        mask &= half.view(-1, *[1] * (len(shape) - 1))
    if kind == "blocks":
        grid = torch.rand(-(-shape[0] // 2), -(-shape[1] // 2), generator=generator) < keep
        whole = grid.repeat_interleave(2, 0)[: shape[0]].repeat_interleave(2, 1)[:, : shape[1]]
        mask &= whole.view(*shape[:2], *[1] * (len(shape) - 2))
    if kind == "elements":
        mask &= torch.rand(shape, generator=generator) < keep
    if kind == "all":
        mask &= False
    return None if kind == "none" else mask
