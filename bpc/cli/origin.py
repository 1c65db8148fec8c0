"""What a stage of a family is set beside: the model that all of its stages come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, fx

from bpc.cli.training import load_for
from bpc.cli.trust import TRUSTED
from bpc.dense import load
from bpc.inputs import example_inputs
from bpc.report.kept import kept_masks, lifted
from bpc.tasks import Task
from passes.frontend.trace import trace


@dataclass(frozen=True)
class Origin:
    """``directory``: of the original; ``earlier``: of the small models between it and a stage, the largest first."""

    directory: Path
    earlier: tuple[Path, ...] = ()

    @property
    def last(self) -> Path:
        """The smallest model so far."""
        return self.earlier[-1] if self.earlier else self.directory

    def lifted(self, task: Task, masks: Mapping[str, Tensor]) -> tuple[fx.GraphModule, dict[str, Tensor]]:
        """The original's graph, and the masks of it that ``masks`` of the last of ``earlier`` come to."""
        network, _ = load_for(task, self.directory)
        graph = trace(network.eval(), example_inputs(network, task.tokenizer))
        whole = dict(masks)
        for directory in reversed(self.earlier):
            small = load(directory, trust_remote_code=TRUSTED.get())
            # The next stage starts from the module, which may keep more than the graph: what the graph lacks is gone.
            whole, gone = lifted(whole, small.module_plan), kept_masks(small.plan)
            whole = {name: whole[name] & gone[name] if name in gone else whole[name] for name in whole}
            whole |= {name: mask for name, mask in gone.items() if name not in whole}
        return graph, whole
