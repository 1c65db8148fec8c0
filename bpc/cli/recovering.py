"""`bpc prune --one-shot`: heads and dims are chosen at once, from what the layers compute; training then recovers."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from bpc import ranks
from bpc.cli.leftovers import MEASURED, UNTRAINED
from bpc.cli.pruning import Pruning
from bpc.cli.timetable import FINE_TUNING, RECOVERY
from bpc.cli.trust import TRUSTED
from bpc.dense import load
from bpc.inputs import example_inputs
from bpc.oneshot import TargetError, prune_once
from bpc.oneshot.problem import prunable
from bpc.oneshot.progress import PhaseProgress
from bpc.report.kept import kept_masks
from bpc.results import score_figures
from bpc.terminal.errors import CommandError
from passes.frontend.trace import trace
from passes.structure.roles import find_roles

if TYPE_CHECKING:
    from torch import fx

    from bpc.dense import DenseModel

CALIBRATION = 512  # examples that layers are measured on


class Recovering(Pruning):
    """`bpc.prune_once` to the target, then training of what is left, with the original as teacher unless told other."""

    default_rate = 1e-4  # chosen on validation data, docs/results.md

    def _read(self) -> None:
        super()._read()
        if self.target is None:
            raise TargetError("--one-shot prunes to a target: give --target-speedup, or another --target-…")
        if self.rules.fill:
            raise CommandError(
                f"--spec {self.rules.name} fills zeros after pruning, and --one-shot leaves none: choose another spec"
            )
        if self.choices.rewind:
            raise CommandError("--rewind protects heads from masks that learn, and --one-shot has none: leave one out")
        if self.new and not self.choices.dense_epochs:
            raise CommandError(
                "--one-shot keeps what the model says, and its new head says nothing yet: add --dense-epochs, or start "
                "from a fine-tuned model"
            )

    def _asked(self) -> dict[str, float]:
        return {FINE_TUNING: self.choices.dense_epochs, RECOVERY: self.choices.epochs}

    def _explain(self, graph: fx.GraphModule) -> None:
        found = prunable(graph, find_roles(graph), self.rules.protect)
        for unit in dict.fromkeys(s.unit for s in found):
            counts = [s.count for s in found if s.unit == unit]
            self.console.print(f"{unit}s that may go: {sum(counts):,}, in {len(counts)} sublayers")
        self.console.print(f"to {self.target}")

    def _make(self) -> DenseModel:
        self._remember_spec()
        if self.teacher is None:
            self.teacher = self.start if self.origin is None else self.origin.directory
        with ranks.ahead():
            dense = self._choose()
        with ranks.ahead():
            self._ask_teacher()
        self._train_small(RECOVERY, dense, self.rate)
        return dense

    def _choose(self) -> DenseModel:
        """The small model before it is trained, as read from what the first rank, or an earlier run, has saved."""
        untrained = self.out / UNTRAINED
        if not (untrained / "config.json").exists():
            assert self.target is not None
            dense = prune_once(
                self.network,
                self._calibration(),
                self.target,
                samples=CALIBRATION,
                protect=self.rules.protect,
                progress=PhaseProgress(self.console),
                state=self.out / MEASURED,
            )
            self.console.print(f"{dense.one_shot}\n{dense.report}")
            dense.save_pretrained(untrained)
        dense = load(untrained, trust_remote_code=TRUSTED.get())
        if ranks.is_first():
            graph = trace(self.network.eval(), example_inputs(self.network, self.task.tokenizer))
            self.drawn = (graph, kept_masks(dense.plan))
            scores = self.run.scores(dense.module)
            self.details["untrained"] = [f.model_dump(mode="json") for f in score_figures([], scores, [], None)]
            if scores:
                self.console.print(f"before training: {', '.join(map(str, scores))}")
        return dense

    def _calibration(self) -> list[Any]:
        """Batches of rows of much the same length; what is drawn depends on the seed."""
        data, size = self.run.data, self.run.batch_size
        rows = random.Random(self.choices.seed).sample(range(len(data)), min(CALIBRATION, len(data)))
        if self.task.tokenizer is not None:
            rows.sort(key=lambda i: len(data[i]["input_ids"]))
        collate = self.run.collator(self.network)
        return [collate([data[i] for i in rows[at : at + size]]) for at in range(0, len(rows), size)]
