"""Random programs as data, their text, and the modules the text makes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tests.fuzz.operators import TEMPLATES
from tests.fuzz.template import VOCABULARY, WIDTH, Template

INPUT = -1  # the number of the value x


@dataclass(frozen=True)
class Step:
    """One operator of a program. ``a`` and ``b`` are the numbers of the steps it reads; INPUT is x."""

    number: int
    template: str  # a name in TEMPLATES
    a: int
    b: int
    width: int
    environment: Mapping[str, Any]  # C, D and the draws; j, E and F for one that shares
    shares: int | None = None  # the number of the step whose modules it uses

    @property
    def source(self) -> Template:
        return TEMPLATES[self.template]

    @property
    def reads(self) -> tuple[int, ...]:
        return (self.a, self.b) if "{b}" in self.source.code else (self.a,)

    def statements(self) -> list[str]:
        names = {"a": value_name(self.a), "b": value_name(self.b), "i": self.number, "j": self.shares}
        *before, last = self.source.code.format(**self.environment, **names).split("\n")
        return [*before, f"{value_name(self.number)} = {last}"]

    def modules(self) -> list[str]:
        return [line.format(**self.environment, i=self.number) for line in self.source.init]


def value_name(number: int) -> str:
    return "x" if number == INPUT else f"v{number}"


@dataclass(frozen=True)
class Program:
    """Steps in order, and the values returned: (number, through a linear of its own or as it is)."""

    steps: tuple[Step, ...]
    outputs: tuple[tuple[int, bool], ...]
    declared: tuple[Step, ...] = ()  # steps that went, whose modules others still use

    def width(self, number: int) -> int:
        return WIDTH if number == INPUT else next(s.width for s in self.steps if s.number == number)

    def text(self) -> str:
        """The source of a module class ``Model``."""
        known = {s.number: s for s in (*self.declared, *self.steps)}
        used = {s.number for s in self.steps} | {s.shares for s in self.steps if s.shares is not None}
        init = [line for number in sorted(used) for line in known[number].modules()]
        body = [line for step in self.steps for line in step.statements()]
        results = []
        for position, (number, through) in enumerate(self.outputs):
            if through:
                init.append(f"self.out{position} = nn.Linear({self.width(number)}, 3)")
            name = value_name(number)
            results.append(f"self.out{position}({name})" if through else name)
        if any(word in line for line in body for word in ("B", "T")):
            body.insert(0, "B, T = x.shape[:2]")
        lines = [
            "class Model(nn.Module):",
            "    def __init__(self):",
            *textwrap.indent("\n".join(["super().__init__()", *init]), " " * 8).split("\n"),
            "",
            "    def forward(self, x, ids, visible):",
            *textwrap.indent("\n".join([*body, f"return {', '.join(results)}"]), " " * 8).split("\n"),
        ]
        return "\n".join(lines)

    def without(self, number: int, instead: int) -> Program:
        """The step gone, ``instead`` read in its place."""
        gone = next(s for s in self.steps if s.number == number)

        def other(n: int) -> int:
            return instead if n == number else n

        steps = tuple(replace(s, a=other(s.a), b=other(s.b)) for s in self.steps if s is not gone)
        outputs = tuple((other(n), through) for n, through in self.outputs)
        return replace(self, steps=steps, outputs=outputs, declared=(*self.declared, gone))


def build(program: Program, seed: int = 0) -> nn.Module:
    """The module in float64, in eval mode, with weights far from tiny; each is drawn by its own name."""
    return build_text(program.text(), seed)


def build_text(text: str, seed: int = 0) -> nn.Module:
    scope: dict[str, Any] = {"torch": torch, "nn": nn, "F": functional}
    exec(compile(text, "<program>", "exec"), scope)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: nn.Module = scope["Model"]().double().eval()
    fill(model, seed)
    return model


def fill(model: nn.Module, seed: int) -> None:
    """Every parameter and every statistic drawn from a generator of its own, so that removing one changes no other."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            generator = torch.Generator().manual_seed(_number(name) + seed)
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            centre = 1.0 if ".n" in f".{name}" and name.endswith("weight") else 0.0
            parameter.copy_(centre + 0.7 * noise)
        for name, buffer in model.named_buffers():
            generator = torch.Generator().manual_seed(_number(name) + seed)
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=generator, dtype=torch.float64) * 0.5)
            elif name.endswith("running_var"):
                buffer.copy_(torch.rand(buffer.shape, generator=generator, dtype=torch.float64) + 0.5)


def _number(name: str) -> int:
    """A number from a name, the same in every process."""
    return int.from_bytes(name.encode()[-6:], "big")


def inputs(seed: int, batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x (B, T, 6), ids (B, T), visible (B, T): every row sees at least its first key."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, length + 1, (batch, 1), generator=generator)
    return (
        torch.randn(batch, length, WIDTH, dtype=torch.float64, generator=generator),
        torch.randint(0, VOCABULARY, (batch, length), generator=generator),
        torch.arange(length) < lengths,
    )


def live_numbers(steps: Iterable[Step], outputs: Iterable[int]) -> set[int]:
    """The steps the outputs are computed from."""
    found = set(outputs)
    for step in reversed(list(steps)):
        if step.number in found:
            found.update(step.reads)
    return found
