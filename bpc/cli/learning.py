"""`bpc prune` by masks that learn: a program is trained to the end, compiled, and filled if its spec says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bpc import ranks
from bpc.cli.pruning import Pruning
from bpc.cli.timetable import FILLING, FINE_TUNING, PRUNING
from bpc.cli.trust import TRUSTED
from bpc.dense import load
from bpc.inputs import example_inputs
from bpc.program import Program, compile
from bpc.scores.files import save_masks
from bpc.spec import explain, resolve
from bpc.terminal.console import print_whole
from bpc.terminal.events import phase
from bpc.train import fill_zeros
from passes.structure.roles import find_roles

if TYPE_CHECKING:
    from torch import fx

    from bpc.dense import DenseModel


class Learning(Pruning):
    """Movement pruning with the spec's rules, to its threshold or to a target."""

    default_rate = 3e-5  # the paper's (section 4)

    def _asked(self) -> dict[str, float]:
        choices = self.choices
        filling = choices.fill_epochs if self.rules.fill else 0.0
        return {FINE_TUNING: choices.dense_epochs, PRUNING: choices.epochs, FILLING: filling}

    def _make(self) -> DenseModel | None:
        program = self._prune()
        with ranks.ahead():
            dense = self._compile(program)
        if self.rules.fill:
            assert dense is not None
            self._fill(program, dense)
        return dense

    def _explain(self, graph: fx.GraphModule) -> None:
        roles = find_roles(graph)
        print_whole(self.console, explain(self.rules, roles, resolve(self.rules, roles)))

    def _prune(self) -> Program:
        if self.target is not None and self.target.speedup is not None:
            self.console.print("timing the model, unless this machine remembers it")
        inputs = example_inputs(self.network, self.task.tokenizer)
        with ranks.ahead():  # times are remembered: one rank takes them, while the others rest
            program = compile(self.network, self.rules, inputs, target=self.target, rewind=self.choices.rewind)
        self._remember_spec()
        with ranks.ahead():
            self._ask_teacher()
        trainer = self._train(PRUNING, self.rate, program=program)
        self.logs[PRUNING] = trainer.state.log_history
        return program

    def _compile(self, program: Program) -> DenseModel | None:
        """The small model; on the other ranks as it is read from what the first has saved, if it is to be filled."""
        if not ranks.is_first():
            return load(self.out / "small", trust_remote_code=TRUSTED.get()) if self.rules.fill else None
        masks = program.masks()
        save_masks(masks, self.out / "masks.safetensors")
        with phase(self.console, "compiling"):
            dense = program.shrink()
        if self.target is not None:
            self.console.print(f"asked for {self.target}: {program.describe_cost()}")
        self.console.print(str(dense.report))
        self.drawn = (program.plain_graph(), masks)
        where = f"--model {self.out / 'masked'} --masks {self.out / 'masks.safetensors'}"
        self.again = [f"bpc shrink {where} --out SMALL"]
        program.detach()
        self._save(self.network, self.out / "masked")
        if self.rules.fill and ranks.count() > 1:
            dense.save_pretrained(self.out / "small")
        return dense

    def _fill(self, program: Program, dense: DenseModel) -> None:
        """The zeros left inside live heads learn too, in the small model (paper section 5: Hybrid Filled)."""
        fill_zeros(dense.module, [p.weight for p in program.plans], torch.Generator().manual_seed(self.choices.seed))
        self._train_small(FILLING, dense, self.choices.fill_learning_rate or self.rate)
