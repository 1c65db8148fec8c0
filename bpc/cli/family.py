"""``bpc prune --family 2,3,5``: a model for each speed-up from one run, each further one pruned from the last."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from bpc import ranks
from bpc.cli.choices import Choices
from bpc.cli.fingerprint import check_same_run, digest_of_weights
from bpc.cli.leftovers import check_place, is_finished, may_resume, remove_checkpoints, remove_runs
from bpc.cli.origin import Origin
from bpc.cli.targets import target_among
from bpc.cli.ways import one_original, run_of
from bpc.oneshot.costs import measured_speedup
from bpc.report.front import front_figure
from bpc.results import read_result
from bpc.results.sweep import Sweep, Trial, speedup_of, sweep_table, with_front
from bpc.terminal.console import print_whole
from bpc.terminal.errors import CommandError
from bpc.terminal.lock import claim_directory
from bpc.writing import new_file

if TYPE_CHECKING:
    from rich.console import Console

    from bpc.results import Result

STARTED, RESULT, PICTURE, WHOLE = "family-run.json", "family.json", "family.png", "whole"


def speedups_of(text: str) -> tuple[float, ...]:
    """ "2,3.5,6" as numbers. Raises `CommandError` for what is no rising list of speed-ups above 1."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or any(not math.isfinite(b) or b <= a for a, b in zip((1.0, *found), found, strict=False)):
        raise CommandError(f"--family {text}: give speed-ups above 1, each larger than the one before, as 2,3.5,6")
    return found


class Family:
    """A run of `bpc prune` for every speed-up, in OUT/2x, OUT/3.5x, …; what is wrong is said before any work."""

    def __init__(self, context: typer.Context, console: Console) -> None:
        self.context, self.console = context, console
        self.given = {**context.params, "family": None}
        self.choices = choices = Choices.among(self.given)
        self.out, self.speedups = choices.out, speedups_of(context.params["family"])
        if target_among(self.given) is not None:
            raise CommandError("--family gives the targets, one after the other: leave --target-… out")
        if choices.minutes is not None:
            raise CommandError(
                "--minutes plans one run, and a family is several: give --epochs, which each of them gets"
            )
        check_place(self.out, self.out / STARTED, "family", resume=choices.resume, force=choices.force)
        self.first = run_of(self._options(self.speedups[0], resume=False, force=True), console)
        if self.first.new and not choices.dense_epochs:
            raise CommandError(
                "a family is set beside the model it comes from, and that one has a new head: add --dense-epochs, or "
                "start from a fine-tuned model"
            )

    def explain(self) -> None:
        """What the first run matches and takes, for --dry-run."""
        self.console.print(f"{len(self.speedups)} runs, each from the model of the one before; the first:")
        self.first.explain()

    def work(self) -> None:
        """All runs, then the table."""
        with ranks.ahead():
            if ranks.is_first():
                self._claim()
        original = self.choices.model
        if self.choices.dense_epochs:
            original = one_original(self._options(self.speedups[0]), self.out / WHOLE, self.console)
        origin, reached = Origin(original), 1.0
        for wanted in self.speedups:
            self.console.print(f"\n{wanted:g}×, from {reached:.2f}×", style="bold", highlight=False)
            self._prune(wanted, reached, origin)
            origin = replace(origin, earlier=(*origin.earlier, self._place(wanted) / "small"))
            if wanted != self.speedups[-1]:
                reached = self._measured(origin)
        if ranks.is_first():
            self._conclude()

    def _claim(self) -> None:
        about = {
            "base weights": digest_of_weights(self.choices.model),
            "speed-ups": list(self.speedups),
            "one-shot": self.choices.one_shot,
            "dense epochs": self.choices.dense_epochs,
        }
        choices = self.choices
        if choices.force and not choices.resume:
            places = (*self.out.glob("[0-9]*x"), self.out / WHOLE)
            remove_runs(places, choices.model, choices.teacher, choices.rewind)
            for name in (RESULT, PICTURE):
                (self.out / name).unlink(missing_ok=True)
        check_same_run(self.out, about, choices.resume, STARTED)

    def _place(self, speedup: float) -> Path:
        return self.out / f"{speedup:g}x"

    def _options(self, wanted: float, reached: float = 1.0, **changed: Any) -> dict[str, Any]:
        """Those of the run to one speed-up, from a model that is ``reached`` times as fast as the original."""
        return {**self.given, "out": self._place(wanted), "target_speedup": max(1.0, wanted / reached), **changed}

    def _prune(self, wanted: float, reached: float, origin: Origin) -> None:
        out = self._place(wanted)
        with ranks.ahead():
            if ranks.is_first():
                out.mkdir(parents=True, exist_ok=True)
                claim_directory(self.context, "--out", out)
        finished, resume = ranks.from_first((is_finished(out), may_resume(out)))
        if finished:
            if ranks.is_first() and not self.choices.keep_checkpoints:
                remove_checkpoints(out)
            return
        changed = {
            "model": origin.last,
            "teacher": self.choices.teacher or origin.directory,
            "dense_epochs": 0.0,
            "resume": resume,
            "force": not resume,
        }
        beside = origin if origin.earlier else None
        run_of(self._options(wanted, reached, **changed), self.console, beside).work()

    def _measured(self, origin: Origin) -> float:
        """How many times as fast as the original the last model is, as the targets mean it."""
        speedup = 1.0
        with ranks.ahead():
            if ranks.is_first():
                target = target_among(self._options(1.0))
                assert target is not None
                self.console.print("timing it beside the original")
                speedup = measured_speedup(*origin.lifted(self.first.task, {}), target)
        return ranks.from_first(speedup)

    # ---- what is told ----------------------------------------------------------------------------------------------

    def _conclude(self) -> None:
        """The table, the picture and the file; without held-out data there is nothing to tell."""
        if self.choices.evaluate is None:
            self.console.print(f"the models are in {', '.join(str(self._place(s) / 'small') for s in self.speedups)}")
            return
        results = [read_result(self._place(speedup) / "result.json") for speedup in self.speedups]
        metric = self.first.task.metrics[0]
        name: Literal["time", "arithmetic"] = "time" if self.choices.time_it else "arithmetic"
        timed = results[0].figure(name)
        family = Sweep(
            metric=metric.name,
            unit="share" if metric.share else "1",
            better="higher" if metric.higher_is_better else "lower",
            speed=name,
            chosen_on=str(self.choices.evaluate),
            workload={} if timed is None else timed.workload,
            asked=len(results),
            trials=with_front([self._trial(i, result) for i, result in enumerate(results)], metric.higher_is_better),
            settings=results[0].settings,
            inputs=results[0].inputs,
            seeds=results[0].seeds,
        )
        family.write(self.out / RESULT)
        with new_file(self.out / PICTURE) as staged:
            front_figure(family).savefig(staged, dpi=160, format="png")
        print_whole(self.console, sweep_table(family))
        self.console.print(f"{self.out / RESULT}, {self.out / PICTURE}", soft_wrap=True)

    def _trial(self, number: int, result: Result) -> Trial:
        figure = result.figure(self.first.task.metrics[0].name)
        assert figure is not None
        return Trial(
            number=number,
            directory=self._place(self.speedups[number]).name,
            values={"target_speedup": self.speedups[number]},
            state="done",
            metric=figure.small,
            original=figure.original,
            speedup=speedup_of(result, timed=self.choices.time_it),
        )
