"""The tables of docs/scaling.md, by name, from the cases of results/scaling.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from benchmarks.scaling.fit import COMPILED, CPU, PEAK, Model, models
from benchmarks.scaling.models import LLAMA_70B
from benchmarks.scaling.projection import GPUS, H100, LARGE, TEXTS, counted, flops, memories, memory, work

Cases = Mapping[str, Mapping[str, Any]]
NOT_MEASURED = "not measured"
ROOM = 0.9  # of a GPU's memory: what is counted is not all there is


def tables(cases: Cases) -> dict[str, str]:
    """Markdown by name."""
    fitted = models(cases)
    return {
        "compiler": _compiler(cases),
        "planning": _planning(cases, fitted),
        "step": _step(cases),
        "ranks": _ranks(cases),
        "models of time": _models([model for model in fitted if model.wanted.figure == CPU], _seconds),
        "models of memory": _models([model for model in fitted if model.wanted.figure == PEAK], _bytes),
        "compiling 7B and 70B": _large(cases, fitted),
        "memory of a GPU": _memory(cases),
        "arithmetic of a token": _flops(cases),
        "arithmetic of a step": _work(cases),
    }


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """Markdown; the first ``words`` columns are words, the others numbers."""
    align = ["---"] * words + ["---:"] * (len(head) - words)
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + "|".join(align) + "|", *lines[1:]]) + "\n"


def _of(cases: Cases, kind: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Cases of a kind, with the model's family; those held out are starred."""
    return [
        (f"{row['family'].capitalize().replace('Bert', 'BERT')}{' *' * row['held out']}", row)
        for key, row in cases.items()
        if key.startswith(f"{kind} ")
    ]


def _compiler(cases: Cases) -> str:
    head = ("model", "layers", "width", "parameters", *(f"{stage} s" for stage in COMPILED), "peak/weights")
    rows = []
    for name, row in sorted(_of(cases, "compile"), key=lambda item: item[1]["family"]):
        stages = row["stages"]
        seconds = [f"{stages[stage][CPU]:.2f}" for stage in COMPILED]
        size = [f"{row['layers']}", f"{row['width']:,}", f"{row['parameters'] / 1e6:.1f} M"]
        rows.append([name, *size, *seconds, f"{_peak(row):.1f}"])
    return _table(head, rows)


def _planning(cases: Cases, fitted: Sequence[Model]) -> str:
    """Its last row is 70B as a whole, by the models."""
    head = ("model", "layers", "width", "parameters", "trace s", "analysis s", "peak MB", "weights GB", "")

    def line(name: str, row: Mapping[str, Any], *found: str) -> list[str]:
        size = [f"{row['layers']}", f"{row['width']:,}", f"{row['parameters'] / 1e9:.2f} B"]
        return [name, *size, *found, f"{2 * row['parameters'] / 1e9:.1f}"]

    rows = []
    for name, row in _of(cases, "plan"):
        stages = row["stages"]
        peak = max(stage[PEAK] for stage in stages.values())
        seconds = [f"{stages[stage][CPU]:.1f}" for stage in ("trace", "analysis")]
        rows.append([*line(name, row, *seconds, f"{peak / 1e6:.0f}"), "measured"])
    one, two = (cases[f"plan llama {n}x{LLAMA_70B.width}"] for n in (2, 4))
    whole = {key: one[key] + (two[key] - one[key]) * (LLAMA_70B.layers - 2) // 2 for key in _GROWS}
    whole |= {"layers": LLAMA_70B.layers, "width": LLAMA_70B.width}
    planned = {model.wanted.stage: model for model in fitted if model.wanted.kind == "plan"}
    seconds = [f"{planned[stage](whole):.0f}" for stage in ("trace", "analysis")]
    rows.append([*line("Llama, by the models below", whole, *seconds, ""), NOT_MEASURED])
    return _table(head, rows)


_GROWS = ("parameters", "in layers", "masked")


def _step(cases: Cases) -> str:
    head = (
        "model", "layers", "width", "tokens", "parameters", "GFLOP", "step s", "GFLOP/s", "saved MB",
        "16 bytes a parameter + saved, MB", "peak MB",
    )  # fmt: skip
    rows = []
    for name, row in _of(cases, "step"):
        step, gigaflops, saved = row["stages"]["step"], row["flops"] / 1e9, row["saved bytes"]
        sizes = [f"{row['layers']}", f"{row['width']:,}", f"{row['tokens']:,}", f"{row['parameters'] / 1e6:.1f} M"]
        speed = [f"{gigaflops:,.1f}", f"{step[CPU]:.3f}", f"{gigaflops / step[CPU]:.0f}"]
        memory = [f"{value / 1e6:,.0f}" for value in (saved, 16 * row["parameters"] + saved, step[PEAK])]
        rows.append([name, *sizes, *speed, *memory])
    return _table(head, rows)


def _ranks(cases: Cases) -> str:
    head = (
        "model",
        "ranks",
        "tokens a rank",
        "weights",
        "scores",
        "bytes averaged",
        "of them scores",
        "calls",
        "CPU s a rank",
    )
    rows = []
    for name, row in _of(cases, "ranks"):
        weights = row["parameters"] - row["scores"]
        counts = [f"{n:,}" for n in (row["ranks"], row["tokens"], weights, row["scores"], row["gradient bytes"])]
        share = 4 * row["scores"] / row["gradient bytes"]
        rows.append([name, *counts, f"{share:.2%}", f"{row['buckets']}", f"{row['stages']['step'][CPU]:.3f}"])
    return _table(head, rows)


def _seconds(value: float) -> str:
    return next(f"{value * scale:.3g} {unit}" for scale, unit in _UNITS if value * scale >= 1 or unit == "ps")


_UNITS = ((1, "s"), (1e3, "ms"), (1e6, "µs"), (1e9, "ns"), (1e12, "ps"))


def _bytes(value: float) -> str:
    return f"{value / 1e6:.3g} MB" if value > 1e4 else f"{value:.3g} bytes"


def _models(fitted: Sequence[Model], unit: Any) -> str:
    head = ("what", "of", "model", "typical residual", "worst", "error on what was held out")
    rows = []
    for model in fitted:
        what = {"plan": ", meta device", "step": "", "compile": ""}[model.wanted.kind]
        form = " + ".join(
            unit(value) if term == "1" else f"{unit(value)} a {term}" for term, value in model.coefficients.items()
        )
        missed = ", ".join(f"{_signed(error)} ({_size(key)})" for key, error in model.held_out.items())
        family = {"bert": "BERT", "llama": "Llama"}[model.wanted.family]
        rows.append([model.wanted.stage + what, family, form, f"{model.typical:.0%}", f"{model.worst:.0%}", missed])
    return _table(head, rows, words=3)


def _signed(share: float) -> str:
    return f"{share:+.0%}".replace("-0%", "0%").replace("+0%", "0%").replace("-", "−")


def _size(key: str) -> str:
    return key.split()[2].replace("x", " × ")


def _large(cases: Cases, fitted: Sequence[Model]) -> str:
    """Minutes of one thread, by the models of Llama; memory as the largest Llama that was measured has it."""
    head = ("", *(f"{stage}, minutes" for stage in COMPILED), "peak GB, before the export", "")
    llama = [model for model in fitted if (model.wanted.kind, model.wanted.family) == ("compile", "llama")]
    chosen = {model.wanted.stage: model for model in llama if model.wanted.figure == CPU}
    largest = max((row for _, row in _of(cases, "compile") if row["family"] == "llama"), key=lambda r: r["parameters"])
    rows = []
    for name, shape in LARGE.items():
        model = counted(cases, shape)
        row = {"layers": shape.layers, "parameters": model.weights, "in layers": model.whole["masked"]}
        minutes = [f"{chosen[stage](row) / 60:,.0f}" for stage in COMPILED]
        rows.append([name, *minutes, f"{_peak(largest) * 4 * model.weights / 1e9:,.0f}", NOT_MEASURED])
    return _table(head, rows)


def _peak(row: Mapping[str, Any]) -> float:
    """Of all stages but the export, over the weights."""
    return float(max(row["stages"][stage][PEAK] for stage in COMPILED[:-1]) / (4 * row["parameters"]))


def _memory(cases: Cases) -> str:
    """GB of a GPU's step on one text of 2,048 tokens."""
    head = (
        "model", "ranks", "held in", "checkpointing", "weights", "gradients", "Adam", "scores", "gathered",
        "masked copies", "activations", "head", "all", "of 80 GB", "",
    )  # fmt: skip
    rows = []
    for size, shape in LARGE.items():
        for ranks, checkpointed, masters, found in memories(counted(cases, shape)):
            words = [size, ranks, "float32" if masters else "bfloat16", "yes" if checkpointed else "no"]
            parts = [f"{value / 1e9:.1f}" for value in (*vars(found).values(), found.total)]
            rows.append([*words, *parts, _room(found.total), NOT_MEASURED])
    return _table(head, rows, words=4)


def _room(needed: float) -> str:
    return "fits" if needed <= ROOM * H100.memory else "tight" if needed <= H100.memory else "too much"


def _flops(cases: Cases) -> str:
    """GFLOP a token."""
    names = {
        "step": "forward and backward",
        "recomputed": "the layers' forward again, by checkpointing",
        "teacher": "a teacher's forward",
    }
    columns = [flops(counted(cases, shape)) for shape in LARGE.values()]
    rows = [[text, *(f"{column[name] / 1e9:.1f}" for column in columns), NOT_MEASURED] for name, text in names.items()]
    return _table(("GFLOP a token", *LARGE, ""), rows)


def _work(cases: Cases) -> str:
    """A step of 2^19 tokens by model, GPUs and texts at a time."""
    head = (
        "model", "GPUs", "texts at a time", "memory GB", "products s", "masks s", "masks' share",
        "weights and gradients sent, GB", "scores sent, MB", "sending at the link's peak s",
        "hours for 10⁹ tokens", "with a teacher", "",
    )  # fmt: skip
    rows = []
    for size, shape in LARGE.items():
        model = counted(cases, shape)
        for ranks, texts in product(GPUS, TEXTS):
            step = work(model, ranks, texts)
            needed = memory(model, ranks, sharded=True, checkpointed=True, masters=True, texts=texts).total
            seconds = [f"{step.products:.1f}", f"{step.masks:.2f}", f"{step.masks / (step.masks + step.products):.0%}"]
            sent = [f"{step.sent / 1e9:,.0f}", f"{step.scores / 1e6:,.0f}", f"{step.linked:.1f}"]
            hours = [f"{step.hours:.1f}", f"{step.hours_taught:.1f}"]
            room = f"{needed / 1e9:.0f}, {_room(needed)}"
            rows.append([size, f"{ranks}", f"{texts}", room, *seconds, *sent, *hours, NOT_MEASURED])
    return _table(head, rows)
