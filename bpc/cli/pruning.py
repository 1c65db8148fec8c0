"""What all runs of `bpc prune` have in common, step by step; every step leaves in the output directory what a resumed
run goes on from. How the small model is made is `bpc.cli.learning`'s and `bpc.cli.recovering`'s."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from bpc import ranks
from bpc.cli.choices import Choices, spec_of
from bpc.cli.fingerprint import check_same_run, digest_of_file, digest_of_rows, digest_of_weights
from bpc.cli.leftovers import (
    CHECKPOINTS,
    ORIGINAL,
    SPEC_FILE,
    TEACHER,
    check_output,
    remove_checkpoints,
    remove_original,
)
from bpc.cli.models import keep_processors, save_tokenizer, some
from bpc.cli.outcome import Outcome
from bpc.cli.tasks import class_order, column_names, length_for, named_rows, processor_for, task_of
from bpc.cli.timetable import (
    FINE_TUNING,
    Timetable,
    memory,
    plan,
    remember,
    remembered,
    step_seconds,
)
from bpc.cli.training import Run, has_fast_bf16, load_for, load_teacher
from bpc.hub.load import WEIGHT_FILES
from bpc.inputs import example_inputs
from bpc.report import write_report
from bpc.results import cells, result_table
from bpc.terminal.errors import CommandError
from bpc.terminal.events import phase
from bpc.train import Trainer, ask_once
from bpc.writing import new_files, write_text
from passes.frontend.trace import trace

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor, fx

    from bpc.cli.origin import Origin
    from bpc.dense import DenseModel
    from bpc.oneshot.target import Target
    from bpc.results import Result
    from bpc.spec import Spec


class Pruning(ABC):
    """A run: the data and the model are read here, so that whatever is wrong with them is said before any work.

    Started on several ranks, all of them read, train and hold the masks; the first also writes, measures and compiles.
    ``origin``: of a stage of a family, what its figures are set beside; else that is the model it starts from.
    """

    drawn: tuple[fx.GraphModule, Mapping[str, Tensor]]
    default_rate: ClassVar[float]

    def __init__(self, choices: Choices, target: Target | None, console: Console, origin: Origin | None = None) -> None:
        self.choices, self.target, self.console, self.out = choices, target, console, choices.out
        self.origin = origin
        self.rate = self.default_rate if choices.learning_rate is None else choices.learning_rate
        self.logs: dict[str, Any] = {}  # of training, by phase
        self.details: dict[str, Any] = {}  # of the way it was made, for result.json
        self.again: list[str] = []  # commands that make the small model again
        self.began = time.perf_counter()
        with ranks.ahead():
            self._read()
        if self.table is None and (choices.minutes is not None or choices.dry_run):
            taught = bool(choices.teacher or choices.dense_epochs)
            timed = target is not None and target.speedup is not None
            self._replan(plan(self.run, self.network, self.asked, taught, timed))

    @abstractmethod
    def _asked(self) -> dict[str, float]:
        """The epochs of every phase of training, in their order."""

    @abstractmethod
    def _make(self) -> DenseModel | None:
        """The small model, trained; None on ranks that do not hold it.

        Sets ``drawn``, on the first rank: the graph that was pruned and the masks of it.
        """

    @abstractmethod
    def _explain(self, graph: fx.GraphModule) -> None:
        """What would be pruned."""

    def explain(self) -> None:
        """What would be pruned and what a run takes, for --dry-run."""
        self._explain(trace(self.network.eval(), example_inputs(self.network, self.task.tokenizer)))
        self.console.print(
            f"{memory(self.network) / 1e9:.2g} GB for weights, gradients and optimizer, beside activations"
        )

    def _read(self) -> None:
        choices, console = self.choices, self.console
        self.rules: Spec = spec_of(choices.spec)
        check_output(self.out, self.rules, choices.resume, choices.force)
        names = column_names(choices.columns, text=choices.text, pair=choices.pair, label=choices.label)
        rows = named_rows(choices.data, names)
        kind = task_of(choices.task, rows, choices.data)
        task = kind(processor_for(kind, choices.model), length_for(kind, choices.model, choices.max_length))
        self.rows = task.check(rows, choices.data)
        task.learn(self.rows)
        if task.classes is not None:
            task.classes = class_order(choices.model, task.classes)
        held_out = None
        if choices.evaluate:
            held_out = task.check(named_rows(choices.evaluate, names, "validation"), choices.evaluate)
        told = f", {len(held_out):,} held out" if held_out else ""
        console.print(f"{kind.name}: {len(self.rows):,} examples{told}")
        self.task = task
        bf16 = has_fast_bf16() if choices.bf16 is None else choices.bf16
        if choices.batch_size % ranks.count():
            raise CommandError(
                f"--batch-size {choices.batch_size} is that of a step on all ranks together, and cannot be divided "
                f"among {ranks.count()}: give a multiple of {ranks.count()}"
            )
        if choices.fsdp and choices.minutes is not None:
            raise CommandError("--minutes times steps of a whole model, which --fsdp is to avoid: give --epochs")
        sharded = choices.fsdp and ranks.count() > 1
        self.run = Run(task, task.encode(self.rows), held_out, choices.batch_size, bf16, choices.seed, sharded)
        torch.manual_seed(choices.seed)  # a new head is random
        self.start, self.teacher = choices.model, choices.teacher
        self.network, self.new = self._load()
        if self.new:
            console.print(f"new weights, which start at random: {some(self.new)}")
        self.asked = self._asked()
        self.table = remembered(self.out) if choices.resume else None

    def work(self) -> None:
        """All phases, then the table."""
        with ranks.ahead():
            self._claim()
        if self.asked[FINE_TUNING]:
            self._fine_tune()
        with ranks.ahead():
            outcome = self._original() if ranks.is_first() else None
        dense = self._make()
        with ranks.ahead():
            if outcome is not None and dense is not None:
                self._conclude(outcome, dense)

    def fine_tune(self) -> Path:
        """The first phase alone: the directory of the original."""
        self._claim()
        self._fine_tune()
        return self.start

    def _original(self) -> Outcome:
        network = self.network if self.origin is None else load_for(self.task, self.origin.directory)[0]
        outcome = Outcome(self.run, self.rows, network, [] if self.new else self.run.scores(network))
        if outcome.original:
            self.console.print(f"original: {', '.join(map(str, outcome.original))}")
        return outcome

    def _conclude(self, outcome: Outcome, dense: DenseModel) -> None:
        dense.save_pretrained(self.out / "small")
        self._save_processors(self.out / "small")
        if self.origin is not None:
            self.drawn = self.origin.lifted(self.task, self.drawn[1])
        with phase(self.console, "measuring"):
            result = outcome.finish(
                dense,
                self.drawn,
                self.start if self.origin is None else self.origin.directory,
                self.out,
                self._settings(),
                self.inputs,
                self.details,
                timed=self.choices.time_it,
            )
        report = self._report(dense, result)
        if not self.choices.keep_checkpoints:
            remove_checkpoints(self.out)
        self.console.print(result_table(result))
        self.console.print(f"small model: {self.out / 'small'}; what was pruned: {report}")

    def _claim(self) -> None:
        """Write down what the run starts with, and compare it where it goes on."""
        choices = self.choices
        self.inputs = {"data": digest_of_rows(self.rows), "base weights": digest_of_weights(choices.model)}
        if choices.teacher:
            self.inputs["teacher"] = digest_of_weights(choices.teacher)
        if self.origin is not None:
            self.inputs["original"] = digest_of_weights(self.origin.directory)
        if choices.rewind:
            self.inputs["rewound from"] = digest_of_file(choices.rewind)
        about = {
            **self.inputs,
            "task": self.task.name,
            "labels": self.task.classes,
            "epochs": choices.epochs,
            "dense epochs": choices.dense_epochs,
            "dense learning rate": choices.dense_learning_rate,
            "teacher": self.inputs.get("teacher"),
            "rewound from": self.inputs.get("rewound from"),
            "batch size": choices.batch_size,
            "learning rate": self.rate,
            "fill learning rate": choices.fill_learning_rate,
            "max length": self.task.max_length,
            "frozen embeddings": choices.freeze_embeddings,
            "minutes": choices.minutes,
            "seed": choices.seed,
            "bf16": self.run.bf16,
            "target": None if self.target is None else str(self.target),
            "one-shot": choices.one_shot,
        }
        self.about = about
        if self.run.held_out is not None:
            self.inputs["held out"] = digest_of_rows(self.run.held_out)
        if not ranks.is_first():
            return
        check_same_run(self.out, about, choices.resume)
        if choices.force and not choices.resume:
            remove_original(self.out, choices.model, choices.teacher, choices.rewind)
            remove_checkpoints(self.out)
        if self.table is not None:
            remember(self.out, self.table)

    def _settings(self) -> dict[str, Any]:
        """What the figures of a run depend on, beside what it read."""
        chosen = {name: value for name, value in self.about.items() if name not in self.inputs and value is not None}
        table = self.table
        epochs = {phase: self._epochs(phase) for phase in self.asked} if table is not None else {}
        return {
            **chosen,
            **({"epochs there was time for": epochs} if epochs else {}),
            "spec": self.rules.model_dump(mode="json"),
        }

    def _fine_tune(self) -> None:
        """The original: fine-tuned whole, it is the start and the teacher of what follows."""
        self.start = self.out / ORIGINAL
        if not (self.start / "config.json").exists():
            self._train(FINE_TUNING, self.choices.dense_learning_rate, model=self.network)
            with ranks.ahead():
                self._save(self.network, self.start)
        self.network, self.new = self._load()
        self.teacher = self.teacher or self.start

    def _report(self, dense: DenseModel, result: Result) -> Path:
        out, (graph, masks) = self.out, self.drawn
        again = [
            *self.again,
            f"bpc export --model {out / 'small'} --out small.onnx",
            f"bpc eval --model {out / 'small'} --data {self.choices.evaluate or 'FILE'}",
        ]
        title = f"{self.choices.model.resolve().name}, {self.task.name}"
        return write_report(
            out / "report",
            graph,
            masks,
            dense,
            history=self.logs,
            figures=cells(result),
            commands=again,
            title=title,
        )

    def _ask_teacher(self) -> None:
        """Once, where its outputs can be kept and are read more than once; else in every step, as for hidden states."""
        self.taught = None if self.teacher is None else load_teacher(self.task, self.teacher)
        if self.teacher is None or self.taught is None:
            return
        epochs = sum(self._epochs(name) for name in self.asked if name != FINE_TUNING)
        if epochs < 1.5 or self.rules.distillation.hidden > 0:
            return
        key = f"{self.inputs['data']} {digest_of_weights(self.teacher)} {self.task.name} {self.task.max_length}"
        known = ask_once(
            self.taught,
            self.run.data,
            self.task.collator(self.taught),
            self.out / TEACHER,
            key=key,
            batch_size=self.run.share,
        )
        if known is not None:
            self.run, self.taught = replace(self.run, data=known), None

    def _train_small(self, phase: str, dense: DenseModel, learning_rate: float) -> None:
        """Train what is left, taught as the spec says."""
        small: Any = dense.module
        self._freeze(small)
        taught = self.rules.distillation
        how: dict[str, Any] = {"distillation_weight": taught.weight, "temperature": taught.temperature}
        if self.teacher is not None:
            how["hidden_weight"] = taught.hidden
        self.logs[phase] = self._train(phase, learning_rate, model=small, **how).state.log_history

    def _train(self, phase: str, learning_rate: float, **what: Any) -> Trainer:
        checkpoints = self.out / CHECKPOINTS[phase]
        teacher = None if phase == FINE_TUNING else self.taught
        timed = self.choices.minutes is not None and not self.choices.resume and phase != FINE_TUNING  # that was timed
        if timed and self.table is not None and phase in self.table.phases:  # a phase of no epochs is not there
            trained = what["program"].module if "program" in what else what["model"]
            self._replan(self.table.started(phase, step_seconds(self.run, trained, teacher)))
            if ranks.is_first():
                remember(self.out, self.table)
        return self.run.train(checkpoints, self._epochs(phase), learning_rate, phase, teacher=teacher, **what)

    def _epochs(self, phase: str) -> float:
        return self.asked[phase] if self.table is None else self.table.epochs(phase)

    def _replan(self, table: Timetable) -> None:
        """Cut what is left to the time that is left, by the clock of the first rank."""
        over = ""
        if self.choices.minutes is not None:
            left = 60 * self.choices.minutes - (time.perf_counter() - self.began)
            table = table.within(left)
            over = table.overrun(left)
        self.console.print(str(table))
        if over and self.table is None:  # said once
            self.console.print(over, style="yellow", highlight=False, soft_wrap=True)
        self.table = ranks.from_first(table)

    def _remember_spec(self) -> None:
        if ranks.is_first():
            write_text(self.out / SPEC_FILE, self.rules.model_dump_json(indent=1))

    def _load(self) -> tuple[Any, list[str]]:
        network, new = load_for(self.task, self.start)
        self._freeze(network)
        return network, new

    def _freeze(self, network: Any) -> None:
        if self.choices.freeze_embeddings:
            network.get_input_embeddings().requires_grad_(False)

    def _save(self, network: Any, directory: Path) -> None:
        if not ranks.is_first():
            return
        with new_files(directory, keystones=("config.json",), replaces=WEIGHT_FILES) as staged:
            network.save_pretrained(staged)
        self._save_processors(directory)

    def _save_processors(self, directory: Path) -> None:
        if self.task.tokenizer is not None:
            save_tokenizer(self.task.tokenizer, directory)
        keep_processors(self.choices.model, directory)
