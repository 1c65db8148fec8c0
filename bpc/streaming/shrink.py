"""`stream_shrink`: from the files of a checkpoint to those of a smaller one, a few tensors in memory at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from bpc.directory import GraphCuts, Saved, WrittenWeights, write_directory
from bpc.hub.note import note_of
from bpc.hub.sizes import note_sizes, tensors_of
from bpc.streaming.checkpoint import Changed, Checkpoint, StreamError
from bpc.streaming.layers import Layers, compare_layers
from bpc.streaming.masks import FactoredMasks
from bpc.streaming.memory import give_back_freed_memory
from bpc.streaming.meta import shapes_of
from bpc.streaming.numbers import Numbers, fingerprint, stored_names
from bpc.streaming.shards import Staging, layout
from bpc.streaming.whole import Whole, compare_whole
from passes.certificate import Certificate, plain, versions
from passes.driver import SEED, least_precise
from passes.frontend.inputs import normalise_inputs, widen_unit_dims
from passes.frontend.trace import trace
from passes.ir.info import trace_info
from passes.masks import MaskSource, resolve_masks
from passes.options import Granularity
from passes.plan.apply import apply_plan
from passes.plan.errors import ModuleViewError
from passes.plan.numbers import changed_attributes
from passes.plan.plan import ModuleView, Plan
from passes.plan.refine import refine
from passes.plan.tensors import SmallTensors
from passes.planning import plan_shrink
from passes.verify.errors import VerificationError

__all__ = ["StreamError", "Streamed", "stream_shrink"]

STAGING = ".bpc-stream"


@dataclass(frozen=True)
class Streamed:
    """What a run did. ``modules``: the model and the small one, on the meta device; ``resumed``: files taken over from
    a run that was killed.
    """

    plan: Plan
    view: ModuleView
    modules: tuple[nn.Module, nn.Module]
    files: int
    resumed: int
    layers: Layers | None
    whole: Whole | None = None

    def __str__(self) -> str:
        before, after = (sum(p.numel() for p in module.parameters()) for module in self.modules)
        lines = [f"parameters {before:,} -> {after:,} in {self.files} files"]
        if self.resumed:
            lines.append(f"{self.resumed} of them are those of an earlier run that was stopped")
        if self.view.refusal:
            lines.append(f"attention is cut by {self.view.granularity}: {self.view.refusal}")
        lines.append("not verified" if self.layers is None else str(self.layers))
        if self.whole is not None:
            lines.append(str(self.whole))
        elif self.layers is not None:
            lines.append("the models were not run whole: `bpc verify --against` does it, where both fit in memory")
        return "\n".join(lines)


def stream_shrink(
    shell: nn.Module,
    directory: str | Path,
    masks: MaskSource,
    out: str | Path,
    example: Mapping[str, Any],
    *,
    multiple: int = 1,
    max_shard_size: int | str = "5GB",
    verify: bool = True,
    whole: bool = False,
    standalone: bool = False,
    changed: Mapping[str, torch.Tensor] | None = None,
    chosen: Any = None,
    step: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> Streamed:
    """Write the small model of a directory as `DenseModel.save_pretrained` does, without ever holding the large one.

    Args:
        shell: the directory's model on the meta device: ``from_pretrained(directory, device_map="meta")``.
        masks: as for `passes.shrink`; read tensor by tensor.
        example: keyword inputs to trace the model with.
        max_shard_size: of the files it writes. A run that is killed goes on from its last whole file; what it has is
            kept in ``out/.bpc-stream``.
        verify: compare layers of the masked model with those of the small one, with random inputs.
        whole: run both models as well, the small one from the files that were written. Weights are read three times.
        changed: {name: tensor}, read in the place of the directory's own, one at a time.
        chosen: how the masks were chosen, for the model card; see `bpc.hub.card`.
        step: told (file, its number, of how many) before each file.

    Raises `StreamError` for a checkpoint that cannot be read so, `ModuleViewError` for a model whose forward cannot
    follow, `passes.MaskError`, and `passes.VerificationError` where a layer computes something else.
    """
    give_back_freed_memory()
    stored_numbers = Checkpoint(Path(directory), shell)
    args, kwargs = pytree.tree_map(_with_numbers, widen_unit_dims(*normalise_inputs(shell, dict(example))))
    on_meta = pytree.tree_map_only(torch.Tensor, lambda t: t.to("meta"), (args, kwargs))
    graph = trace(shell, on_meta[1] or on_meta[0])
    checkpoint = Changed(stored_numbers, changed or {}, trace_info(graph).aliases)
    found = FactoredMasks(resolve_masks(graph, masks))
    plan, view, numbers, first = _plan(graph, found, shell, checkpoint, on_meta, multiple)
    note_sizes(view.module, view.plan.cuts, note_of(getattr(shell, "config", None)))
    stored = stored_names(view.module)
    sizes = tensors_of(view.module)
    files, index = layout({name: sizes[name] for name in stored}, max_shard_size)
    staging = Staging(Path(out) / STAGING, fingerprint(view.plan, Path(directory), masks, files, changed or {}))
    resumed = sum(staging.done(file) is not None for file in files)
    entries = {}
    with ThreadPoolExecutor(1) as beside:  # what is compared is arithmetic, what is written waits for the disk
        arguments = (shell, view.module, numbers.masked, numbers.small, on_meta)
        compared = beside.submit(compare_layers, *arguments, known=first) if verify else None
        for number, (file, names) in enumerate(files.items()):
            if compared is not None and compared.done():
                compared.result()  # a layer that differs ends the work
            step(file, number, len(files))
            entries[file] = staging.done(file) or numbers.write(staging, file, {name: sizes[name] for name in names})
        layers = None if compared is None else compared.result()
    run = None
    if whole:
        home = {name: (file, own) for file, names in files.items() for own in names for name in stored[own]}
        inputs = (args, kwargs)
        written = numbers.written(staging.directory, home)
        run = compare_whole(shell, view.module, numbers.masked, written, inputs)
    small = {name: digest for entry in entries.values() for name, digest in entry["small"].items()}
    large = {name: digest for entry in entries.values() for name, digest in entry["masked"].items()}
    traced = {name: tuple(p.shape) for name, p in graph.named_parameters()}
    certificate = Certificate(
        view="module",
        dtype=str(least_precise(graph)).removeprefix("torch."),
        seed=SEED,
        options=plain({"granularity": view.granularity, "multiple": multiple, "tolerance": None}),
        versions=versions(),
        masked={name: large[name] for name in traced if name in large},
        small={name: small[own] for own, group in stored.items() for name in group},
        plan=view.plan.plain(),
        passes=({"name": "stream", "modified": bool(plan.cuts or plan.folds), "counts": {"files": len(files)}},),
        agreement=plain((asdict(layers) if layers else {}) | ({"whole": run} if run else {})) or None,
    )
    parameters = sum(torch.Size(plan.small_shape(name, shape)).numel() for name, shape in traced.items())
    write_directory(
        out,
        Saved(view, GraphCuts(plan, parameters, "dims", multiple), (args, kwargs), certificate),
        weights=WrittenWeights({file: (staging.directory / file, e["sha256"]) for file, e in entries.items()}, index),
        without_bpc=standalone,
        chosen=chosen,
    )
    staging.remove()
    return Streamed(plan, view, (shell, view.module), len(files), resumed, layers, run)


def _plan(
    graph: fx.GraphModule,
    masks: FactoredMasks,
    shell: nn.Module,
    checkpoint: Mapping[str, torch.Tensor],
    inputs: Any,
    multiple: int,
) -> tuple[Plan, ModuleView, Numbers, Layers | None]:
    """(the graph's plan, the module that follows it or a coarser one, its numbers), as `Plan.view` has them; and what
    was compared on the way."""
    first: Plan | None = None
    refusal = ""
    order: tuple[Granularity, ...] = get_args(Granularity)
    for granularity in order:
        plan = plan_shrink(
            graph, masks, read=checkpoint.get, own_zeros=True, granularity=granularity, multiple=multiple
        )
        first = first or plan
        tensors = SmallTensors(plan, checkpoint, masks)
        numbers = Numbers(checkpoint, masks, plan, tensors)
        try:
            check = _Check(shell, numbers, inputs)
            module = apply_plan(plan, shell, check=check, biases=tensors.biases)
        except ModuleViewError as error:
            if not error.reason or granularity == order[-1]:
                raise
            refusal = refusal or error.reason
            continue
        plan = replace(plan, attributes=changed_attributes(shell, module))
        view, layers = ModuleView(module, plan, granularity, refusal), check.layers
        if (finer := refine(plan, first, shell)).spreads:
            tensors = SmallTensors(finer, checkpoint, masks)
            smaller = Numbers(checkpoint, masks, finer, tensors)
            check = _Check(shell, smaller, inputs)
            with contextlib.suppress(ModuleViewError):
                module = apply_plan(finer, shell, check=check, biases=tensors.biases)
                return first, replace(view, module=module, plan=finer), smaller, check.layers
        return first, view, numbers, layers
    raise AssertionError("one granularity is the last")


class _Check:
    """Whether a module without numbers is what the plan says: its outputs' shapes, and its first layers with numbers.

    Shapes alone cannot tell a head count from another number that happened to be equal to it.
    """

    def __init__(self, shell: nn.Module, numbers: Numbers, inputs: Any) -> None:
        self._shell, self._numbers, self._inputs = shell, numbers, inputs
        self._expected = shapes_of(shell, inputs)
        self.layers: Layers | None = None  # of the last module that was right

    def run(self, module: nn.Module) -> Any:
        return shapes_of(module, self._inputs)

    def failure(self, module: nn.Module) -> str | None:
        try:
            found = shapes_of(module, self._inputs)
        except Exception as error:  # the forward is the user's: anything can come out of it
            return f"its forward fails: {type(error).__name__}: {error}"
        if found != self._expected:
            return f"its outputs have shapes {found} instead of {self._expected}"
        try:
            self.layers = compare_layers(
                self._shell, module, self._numbers.masked, self._numbers.small, self._inputs, first=True
            )
        except VerificationError as error:
            return str(error)
        return None


def _with_numbers(leaf: Any) -> Any:
    """An example's tensor; ones, as for tokens and masks, where the model made it on the meta device."""
    return torch.ones_like(leaf, device="cpu") if isinstance(leaf, torch.Tensor) and leaf.is_meta else leaf
