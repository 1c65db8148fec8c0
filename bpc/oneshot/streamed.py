"""`stream_prune_once`: what `prune_once` does, from the files of a model to those of a smaller one.

The same steps on the same graph, traced on the meta device. What is in memory at a time:

    weights        those of one sublayer, read from the checkpoint when its nodes run, and let go of at its end
    activations    one batch within one sublayer, and one frontier; all other frontiers are files
    moments        one sublayer's, float64: about eight matrices of (features x features) while it is solved
    refitted       one sublayer's; those of earlier ones are files, read back when the pruned model runs
    outputs        the original's and the changed model's, of one batch
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

import passes
from bpc.oneshot.batches import as_traced, calibration_batches, trace_example
from bpc.oneshot.problem import Problem, prunable, setting_of
from bpc.oneshot.progress import PhaseProgress
from bpc.oneshot.report import OneShotReport
from bpc.oneshot.resume import Saved
from bpc.oneshot.stream import Original, Spill, Timeline
from bpc.oneshot.sublayers import find_sublayers
from bpc.oneshot.target import Target, TargetError
from bpc.streaming.checkpoint import Checkpoint, StreamError
from bpc.streaming.memory import give_back_freed_memory
from bpc.streaming.shrink import Streamed, stream_shrink
from passes.ir.graph import GraphTensors
from passes.structure.roles import find_roles

_META, _CPU = torch.device("meta"), torch.device("cpu")


def stream_prune_once(
    shell: nn.Module,
    directory: str | Path,
    data: Iterable[Any],
    target: Target | float,
    out: str | Path,
    *,
    tokenizer: Any = None,
    samples: int = 512,
    batch_size: int = 32,
    max_length: int = 128,
    effort: float = 1.0,
    ridge: float = 1e-2,
    multiple: int = 8,
    protect: Sequence[str] = (),
    max_shard_size: int | str = "5GB",
    verify: bool = True,
    standalone: bool = False,
    progress: bool | PhaseProgress = True,
    state: str | Path | None = None,
    step: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> tuple[Streamed, OneShotReport]:
    """Prune the model of ``directory`` to ``target``, and write the small one to ``out``, without ever holding either.

    Args:
        shell: the directory's model on the meta device: ``from_pretrained(directory, device_map="meta")``.
        state: activations and refitted weights lie there too, beside what `prune_once` keeps; the disk needs room for
            all frontiers, twice while weights are refitted. Default: a temporary folder beside ``out``.
        max_shard_size, verify, step: as for `bpc.streaming.stream_shrink`.

    The others are as for `prune_once`; heads do not get narrower here. Raises what both raise; `TargetError` for a
    speed-up, which is measured on whole models.
    """
    target = Target.of(target)
    if target.speedup is not None:
        raise TargetError(
            "a speed-up is measured on whole models, which are not in memory here: give params=, density= or bytes= "
            "(--target-params, --target-density, --target-bytes), or leave out --stream"
        )
    give_back_freed_memory()
    shown = progress if isinstance(progress, PhaseProgress) else PhaseProgress(enabled=progress)
    checkpoint = Checkpoint(Path(directory), shell)
    batches = calibration_batches(shell, data, tokenizer, samples=samples, batch_size=batch_size, max_length=max_length)
    example = trace_example(shell, batches[0])
    with shown.phase("tracing"):
        graph = passes.trace(shell, pytree.tree_map_only(Tensor, lambda t: t.to(_META), example))
        weights = _weights(graph, checkpoint)
        _on_cpu(graph)
    roles = find_roles(graph)
    sublayers = prunable(graph, roles, protect)
    bounds = [node for sublayer in find_sublayers(graph, roles) for node in sublayer.nodes]
    batches = [as_traced(graph, batch) for batch in batches]
    setting = setting_of(shell, graph, sublayers, batches, effort=effort, ridge=ridge)
    with _folder(state, Path(out)) as folder:
        original = Original(graph, weights, Timeline(graph, bounds), Spill(0, folder))
        saved = Saved(folder, original, batches, setting)
        problem = Problem(original, sublayers, {}, batches, setting, target, multiple, saved, shown)
        costs, budget = problem.costs()
        ladders, shared = problem.ladders()
        selection = problem.search(ladders, costs, budget)
        changed = problem.repaired(ladders, shared, selection)
        report = problem.report(ladders, selection, costs, problem.compared(changed))
        with shown.phase("planning and writing"):
            streamed = stream_shrink(
                shell,
                directory,
                problem.masks(ladders, selection),
                out,
                example,
                max_shard_size=max_shard_size,
                verify=verify,
                standalone=standalone,
                changed=changed,
                chosen=report,
                step=step,
            )
        saved.drop_repaired()
    return streamed, replace(report, seconds=dict(shown.seconds))


def _weights(graph: fx.GraphModule, checkpoint: Checkpoint) -> Mapping[str, Tensor]:
    """All that the graph reads, by name: the checkpoint's, and constants of the forward. Raises `StreamError`."""
    own = GraphTensors(graph)
    constants = {name: own[name] for name in own if name not in checkpoint}
    if computed := next((name for name, value in constants.items() if value.is_meta), None):
        raise StreamError(
            f"the forward makes {computed!r} from numbers that are not in memory, and no weight is called so. Leave "
            "out --stream"
        )
    return ChainMap(constants, checkpoint)  # type: ignore[arg-type]  # nothing is written to it


def _on_cpu(graph: fx.GraphModule) -> None:
    """Let a graph that was traced on the meta device make its tensors where there are numbers."""
    for node in graph.graph.nodes:
        node.args, node.kwargs = pytree.tree_map(lambda leaf: _CPU if leaf == _META else leaf, (node.args, node.kwargs))


@contextlib.contextmanager
def _folder(state: str | Path | None, out: Path) -> Iterator[Path]:
    """A place for files: ``state``, which stays, or a temporary one."""
    if state is not None:
        Path(state).mkdir(parents=True, exist_ok=True)
        yield Path(state)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        yield Path(folder)
