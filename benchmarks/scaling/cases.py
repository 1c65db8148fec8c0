"""What is measured: depth and width one at a time, and larger models, to which nothing is fitted but all is tested."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from benchmarks.scaling.models import LLAMA_7B, LLAMA_70B, Shape


@dataclass(frozen=True)
class Case:
    """``kind``: compile, plan, step, ranks, count. ``texts``, ``ranks``: of a step. ``held_out``: not fitted."""

    kind: str
    shape: Shape
    repeats: int = 3
    texts: int = 0
    ranks: int = 1
    held_out: bool = False

    @property
    def key(self) -> str:
        more = f" {self.texts} texts" * bool(self.texts) + f" {self.ranks} ranks" * (self.kind == "ranks")
        return f"{self.kind} {self.shape.family} {self.shape.layers}x{self.shape.width}{more}"

    def measure(self) -> dict[str, Any]:
        """Run it in this process."""
        if self.kind == "compile":
            from benchmarks.scaling.compiler import compile_case

            return compile_case(self.shape, self.repeats)
        if self.kind == "plan":
            from benchmarks.scaling.compiler import plan_case

            return plan_case(self.shape, self.repeats)
        from benchmarks.scaling.training import count_case, ranks_case, step_case

        if self.kind == "count":
            return count_case(self.shape, self.texts)
        return (step_case if self.kind == "step" else ranks_case)(self.shape, self.texts, self.repeats)


def _compiled() -> list[Case]:
    bert = [(2, 256), (4, 256), (8, 256), (16, 256), (32, 256), (2, 512), (2, 1024), (2, 2048)]
    llama = [(2, 256), (8, 256), (2, 512), (2, 1024)]
    cases = [Case("compile", Shape("bert", *size), _repeats(*size)) for size in bert]
    cases += [Case("compile", Shape("llama", *size), _repeats(*size)) for size in llama]
    larger = [("bert", 12, 768), ("bert", 24, 1024), ("llama", 16, 1024)]
    return [*cases, *(Case("compile", Shape(*size), repeats=1, held_out=True) for size in larger)]


def _repeats(layers: int, width: int) -> int:
    return 3 if layers * width <= 1024 else 2 if layers * width <= 2048 else 1


def _planned() -> list[Case]:
    shapes = [replace(LLAMA_7B, layers=layers) for layers in (2, 4, 8)]
    shapes += [Shape("llama", 8, 1024, vocabulary=32000)]
    larger = [LLAMA_7B, *(replace(LLAMA_70B, layers=layers) for layers in (2, 4))]
    cases = [Case("plan", shape) for shape in shapes]
    return [*cases, *(Case("plan", shape, repeats=1, held_out=True) for shape in larger)]


def _steps() -> list[Case]:
    found = []
    for family in ("bert", "llama"):
        sizes = [(layers, 256, 8) for layers in (2, 4, 8, 16)] + [(2, width, 8) for width in (512, 1024, 2048)]
        sizes += [(2, 1024, texts) for texts in (2, 32)]
        found += [Case("step", Shape(family, *size), 7 if size[1] < 1024 else 3, texts) for *size, texts in sizes]
        found.append(Case("step", Shape(family, 12, 1024), 3, 16, held_out=True))
    return found


def _ranks() -> list[Case]:
    shapes = [(shape, ranks) for shape in (Shape("bert", 4, 512), Shape("llama", 4, 512)) for ranks in (1, 2)]
    return [Case("ranks", shape, 7, 8, ranks) for shape, ranks in shapes]


def _counted() -> list[Case]:
    return [Case("count", replace(shape, layers=n), texts=1) for shape in (LLAMA_7B, LLAMA_70B) for n in (1, 2)]


CASES = {case.key: case for case in (*_compiled(), *_planned(), *_steps(), *_ranks(), *_counted())}
