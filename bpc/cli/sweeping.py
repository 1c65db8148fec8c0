"""Many runs of `bpc prune`, one after the other: Optuna says which, and remembers what became of them.

OUT holds Optuna's study (``study.db``, SQLite: written whole or not at all, whatever ends the process) and a directory
for each trial, which is a run of `bpc prune` like any other. All tables and pictures are made of the study.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import traceback
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import typer
from accelerate.utils.memory import clear_device_cache
from optuna.trial import TrialState

from bpc.cli.choices import Choices, spec_of
from bpc.cli.fingerprint import check_same_run, digest_of_rows, digest_of_weights
from bpc.cli.leftovers import ORIGINAL, check_place, is_finished, may_resume, remove_checkpoints, remove_runs
from bpc.cli.space import FIXED, SPEC, Space
from bpc.cli.targets import target_among
from bpc.cli.tasks import column_names, length_for, named_rows, processor_for, task_of
from bpc.cli.ways import one_original, run_of
from bpc.report.front import front_figure
from bpc.results import Figure, Result, read_result
from bpc.results.comparison import this_machine
from bpc.results.sweep import Sweep, Trial, speedup_of, sweep_table
from bpc.spec import SpecError
from bpc.terminal.console import print_whole
from bpc.terminal.errors import CommandError
from bpc.terminal.events import tell, told
from bpc.terminal.lock import claim_directory
from bpc.terminal.options import DEBUG
from bpc.timing.alternate import available_threads
from bpc.writing import new_file

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial
    from rich.console import Console

STUDY, STARTED, RESULT, PICTURE, WHOLE = "study.db", "sweep-run.json", "sweep.json", "pareto.png", "whole"
# Whoever varies one of these needs an original for each trial; else one is fine-tuned for all of them.
_OF_THE_ORIGINAL = frozenset(
    {"dense_epochs", "dense_learning_rate", "batch_size", "seed", "max_length", "freeze_embeddings", "bf16", "minutes"}
)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})  # of no use to try another trial


class Sweeping:
    """A sweep: what is wrong with its data or its table is said before any work."""

    def __init__(self, context: typer.Context, space: Space, console: Console) -> None:
        self.context, self.space, self.console = context, space, console
        self.given: dict[str, Any] = dict(context.params)
        choices = self.choices = Choices.among(self.given)
        self.out = choices.out
        if choices.evaluate is None:
            raise CommandError("a sweep compares trials on held-out data: give --eval")
        check_place(self.out, self.out / STARTED, "sweep", resume=choices.resume, force=choices.force)
        with contextlib.suppress(SpecError):  # a spec that is none is for its trial to say
            target_among(space.options(self.given, space.example()))
        names = column_names(choices.columns, text=choices.text, pair=choices.pair, label=choices.label)
        rows = named_rows(choices.data, names)
        kind = task_of(choices.task, rows, choices.data)
        task = kind(processor_for(kind, choices.model), length_for(kind, choices.model, choices.max_length))
        held_out = task.check(named_rows(choices.evaluate, names, "validation"), choices.evaluate)
        self.metric = task.metrics[0]
        self.inputs = {
            "data": digest_of_rows(task.check(rows, choices.data)),
            "held out": digest_of_rows(held_out),
            "base weights": digest_of_weights(choices.model),
        }
        self.about = {**self.inputs, "task": task.name, **self._settings()}

    def explain(self) -> None:
        """What would be tried, and what one trial matches and takes, for --dry-run."""
        for name, values in self.space.describe().items():
            self._say(f"{name}: {values}")
        self._say(f"trials: {self.space.count}, the first of which is")
        run_of(self.space.options(self.given, self.space.example()), self.console).explain()

    def work(self) -> None:
        """All trials, then the table. Exits with code 1 where a trial failed."""
        study = self._study()
        self._fine_tune_once()
        with told("sweep", self.space.count):
            while (trial := self._next(study)) is not None:
                self._try(study, trial)
                last = self._conclude(study).trials[trial.number]
                tell("step", phase="sweep", step=trial.number + 1, total=self.space.count, **_logged(last))
                clear_device_cache(garbage_collection=True)
        sweep = self._conclude(study)
        print_whole(self.console, sweep_table(sweep))
        for failed in (t for t in sweep.trials if t.state == "failed"):
            self._say(f"trial {failed.number:03} failed: {failed.why}", "yellow")
        self._say(f"{self.out / RESULT}, {self.out / PICTURE}; each trial is in {self.out}/trial-NNN")
        if len(sweep.done) < len(sweep.trials):
            raise typer.Exit(1)

    # ---- the study -------------------------------------------------------------------------------------------------

    def _study(self) -> optuna.Study:
        """The study in OUT, new or as an earlier process left it. Raises `CommandError` for one of other values."""
        if self.choices.force and not self.choices.resume:
            self._remove()
        check_same_run(self.out, self.about, self.choices.resume, STARTED)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            storage=f"sqlite:///{(self.out / STUDY).resolve()}",
            study_name="bpc",
            directions=["maximize" if self.metric.higher_is_better else "minimize", "maximize"],
            load_if_exists=True,
        )
        if self.space.trials is None:
            for point in self.space.grid()[len(study.trials) :]:
                study.enqueue_trial(point)
        return study

    def _settings(self) -> dict[str, Any]:
        """What all trials have in common, as JSON."""
        varied = {axis.path[0] for axis in self.space.axes if len(axis.path) == 1}
        common = {n: v for n, v in self.given.items() if n not in FIXED | varied and n != SPEC}
        machine = this_machine(available_threads())
        return {
            "[sweep]": self.space.describe(),
            "spec": None if SPEC in varied else spec_of(self.choices.spec).model_dump(mode="json"),
            **{name.replace("_", " "): v for name, v in json.loads(json.dumps(common, default=str)).items()},
            "timing": f"{machine.cpu}, {machine.threads} threads" if self.choices.time_it else None,
        }

    def _remove(self) -> None:
        choices = self.choices
        remove_runs((*self.out.glob("trial-[0-9]*"), self.out / WHOLE), choices.model, choices.teacher, choices.rewind)
        for name in (STUDY, STARTED, RESULT, PICTURE):
            (self.out / name).unlink(missing_ok=True)

    def _next(self, study: optuna.Study) -> optuna.Trial | None:
        """The trial that was interrupted, or a new one; None when all are done.

        A sampler is seeded by the number of its trial, so that a sweep that was interrupted tries what it would have.
        """
        trials = study.get_trials(deepcopy=False)
        begun = next((t for t in trials if t.state == TrialState.RUNNING), None)
        number = len(trials) if begun is None else begun.number
        seed = int(np.random.SeedSequence([self.choices.seed, number]).generate_state(1)[0])
        samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
        study.sampler = samplers[self.space.sampler](seed=seed)
        if begun is not None:
            return optuna.Trial(study, begun._trial_id)
        waiting = any(t.state == TrialState.WAITING for t in trials)
        if not waiting and (self.space.trials is None or len(trials) >= self.space.trials):
            return None
        return study.ask()

    # ---- a trial ---------------------------------------------------------------------------------------------------

    def _try(self, study: optuna.Study, trial: optuna.Trial) -> None:
        chosen = self.space.choose(trial)
        said = ", ".join(f"{name} {value}" for name, value in chosen.items())
        self._say(f"\ntrial {trial.number:03}, {trial.number + 1} of {self.space.count}: {said}", "bold")
        same = next((t for t in _finished(study) if t.params == trial.params), None)
        if same is not None:
            self._say(f"as trial {same.number:03}, which is not repeated")
            for name, value in same.user_attrs.items():
                trial.set_user_attr(name, value)
            trial.set_user_attr("same as", same.number)
            study.tell(trial, same.values)
            return
        try:
            result = self._run(trial.number, chosen)
            metric = self._metric(result)
            assert metric.small is not None
            speedup = speedup_of(result, timed=self.choices.time_it)
        except typer.Exit:
            raise  # stopped by a signal: the trial goes on with --resume
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _FULL:
                raise
            if DEBUG.get():
                traceback.print_exception(error)
            own = type(error).__module__.partition(".")[0] in ("bpc", "passes")
            why = str(error) if own else f"{type(error).__name__}: {error}"
            self._say(f"trial {trial.number:03} failed: {why}", "yellow")
            trial.set_user_attr("why", why)
            study.tell(trial, state=TrialState.FAIL)
            return
        timed = result.figure("time" if self.choices.time_it else "arithmetic")
        assert timed is not None
        trial.set_user_attr("metric", metric.model_dump(mode="json"))
        trial.set_user_attr("speed-up", speedup.model_dump(mode="json"))
        trial.set_user_attr("workload", timed.workload)
        study.tell(trial, [metric.small.value, speedup.value])

    def _run(self, number: int, chosen: dict[str, Any]) -> Result:
        """One `bpc prune`, from where an earlier process left it."""
        out = self.out / _directory(number)
        if not is_finished(out):
            resume = may_resume(out)
            given = {**self.space.options(self.given, chosen), "out": out, "resume": resume, "force": not resume}
            if ((whole := self.out / WHOLE / ORIGINAL) / "config.json").exists():
                given |= {"model": whole, "teacher": self.choices.teacher or whole, "dense_epochs": 0.0}
            claim_directory(self.context, "--out", out)
            run_of(given, self.console).work()
        elif not self.choices.keep_checkpoints:
            remove_checkpoints(out)
        return read_result(out / "result.json")

    def _metric(self, result: Result) -> Figure:
        figure = result.figure(self.metric.name)
        if figure is None or figure.small is None or not math.isfinite(figure.small.value):
            raise CommandError(f"the {self.metric.name} of the small model is no number")
        return figure

    def _fine_tune_once(self) -> None:
        """One original for all trials, where they would make the same one each."""
        varied = {axis.path[0] for axis in self.space.axes}
        out = self.out / WHOLE
        if not self.choices.dense_epochs or varied & _OF_THE_ORIGINAL:
            return
        self._say("the original of all trials", "bold")
        one_original(self.space.options(self.given, self.space.example()), out, self.console)

    # ---- what is told ----------------------------------------------------------------------------------------------

    def _conclude(self, study: optuna.Study) -> Sweep:
        """Write what is known by now."""
        trials = study.get_trials(deepcopy=False)
        finished = _finished(study)
        front = {t.number for t in study.best_trials} if finished else set()
        sweep = Sweep(
            metric=self.metric.name,
            unit="share" if self.metric.share else "1",
            better="higher" if self.metric.higher_is_better else "lower",
            speed="time" if self.choices.time_it else "arithmetic",
            chosen_on=str(self.choices.evaluate),
            workload=next((t.user_attrs["workload"] for t in finished), {}),
            asked=self.space.count,
            trials=[self._told(t, t.number in front) for t in trials if t.state != TrialState.WAITING],
            settings={name: v for name, v in self.about.items() if name not in self.inputs and v is not None},
            inputs=self.inputs,
            seeds={"seed": self.choices.seed},
        )
        sweep.write(self.out / RESULT)
        if finished:
            with new_file(self.out / PICTURE) as staged:
                front_figure(sweep).savefig(staged, dpi=160, format="png")
        return sweep

    def _say(self, text: str, style: str | None = None) -> None:
        self.console.print(text, style=style, soft_wrap=True, markup=False)  # values and reasons may hold brackets

    def _told(self, trial: FrozenTrial, front: bool) -> Trial:
        held, done = trial.user_attrs, trial.state == TrialState.COMPLETE
        figure = Figure.model_validate(held["metric"]) if done else None
        state = {TrialState.COMPLETE: "done", TrialState.FAIL: "failed"}.get(trial.state, "unfinished")
        return Trial(
            number=trial.number,
            directory=_directory(held.get("same as", trial.number)),
            values=trial.params,
            state=state,  # type: ignore[arg-type]
            metric=figure.small if figure is not None else None,
            original=figure.original if figure is not None else None,
            speedup=held["speed-up"] if done else None,
            front=front,
            same_as=held.get("same as"),
            why=held.get("why"),
        )


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _logged(trial: Trial) -> dict[str, Any]:
    numbers = {"metric": trial.metric, "speedup": trial.speedup}
    return {"trial": trial.directory, "state": trial.state} | {n: v.value for n, v in numbers.items() if v is not None}


def _directory(number: int) -> str:
    return f"trial-{number:03}"
