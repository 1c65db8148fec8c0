"""What `bpc.prune_once` works on, for methods that choose otherwise: its graph, units, batches, costs and repair."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

import passes
from bpc.costs import Costs
from bpc.oneshot import Target
from bpc.oneshot.batches import Batch, calibration_batches, trace_example
from bpc.oneshot.costs import counted
from bpc.oneshot.estimate import probe_batches
from bpc.oneshot.ladder import Ladder
from bpc.oneshot.ladders import Setting
from bpc.oneshot.masks import columns_mask
from bpc.oneshot.repair import repair
from bpc.oneshot.resume import Saved
from bpc.oneshot.search import Selection
from bpc.oneshot.stream import Original
from bpc.oneshot.sublayers import Sublayer, find_sublayers
from passes.ir.info import trace_info
from passes.structure.roles import find_roles


@dataclass(frozen=True)
class Calibrated:
    """A model, its graph and units, and calibration batches."""

    model: nn.Module
    graph: fx.GraphModule
    sublayers: tuple[Sublayer, ...]
    batches: list[Batch]
    setting: Setting

    def costs(self, target: Target) -> tuple[Costs, float]:
        """Parameters by kept units, and the number that ``target`` allows."""
        return counted(self.graph, self.sublayers, target)

    def ladders(self, state: Path) -> dict[str, Ladder]:
        """What `prune_once` measured and kept in ``state``."""
        return Saved(state, Original.of(self.graph), self.batches, self.setting).ladders()

    def masks(self, ladders: Mapping[str, Ladder], kept: Mapping[str, int]) -> dict[str, Tensor]:
        """The masks of the columns that stay, for `passes.shrink`."""
        return {
            s.weight: columns_mask(self.graph, s, ladders[s.name].kept(kept[s.name]))
            for s in self.sublayers
            if kept[s.name] < s.count
        }

    def small(self, ladders: Mapping[str, Ladder], kept: Mapping[str, int]) -> fx.GraphModule:
        """The compiled graph: right in its shapes, which is what its speed depends on."""
        return passes.shrink(self.graph, self.masks(ladders, kept), verify=False).graph_module

    def zeroed(self, ladders: Mapping[str, Ladder], kept: Mapping[str, int]) -> nn.Module:
        """A copy of the model with zeros in the columns that go: what compiling it computes."""
        model = copy.deepcopy(self.model)
        with torch.no_grad():
            for name, mask in self.masks(ladders, kept).items():
                model.get_parameter(name).mul_(mask)
        return model

    def repaired(self, ladders: Mapping[str, Ladder], kept: Mapping[str, int]) -> nn.Module:
        """`zeroed`, and the rest refitted."""
        original, selection = Original.of(self.graph), Selection(dict(kept))
        model = copy.deepcopy(self.model)
        with torch.no_grad():
            for name, numbers in repair(
                original, self.sublayers, self.batches, selection, ladders, self.setting
            ).items():
                model.get_parameter(name).copy_(numbers)
        return model


def calibrated(model: nn.Module, data: Iterable[Any], tokenizer: Any = None, **options: int) -> Calibrated:
    """As `bpc.prune_once` prepares it; ``options``: its ``samples``, ``batch_size`` and ``max_length``."""
    batches = calibration_batches(model, data, tokenizer, **options)
    graph = passes.trace(model, trace_example(model, batches[0]))
    example = trace_info(graph).kwargs
    batches = [{name: batch.get(name, value) for name, value in example.items()} for batch in batches]
    sublayers = find_sublayers(graph, find_roles(graph))
    return Calibrated(
        model, graph, sublayers, batches, Setting(probes=probe_batches(graph, sublayers, batches, effort=1.0))
    )


def layers_of(sublayers: Sequence[Sublayer]) -> list[list[Sublayer]]:
    """Attention and feed-forward network of each layer of an encoder or decoder, in order."""
    assert {s.unit for s in sublayers[::2]} == {"head"}
    return [list(pair) for pair in zip(sublayers[::2], sublayers[1::2], strict=True)]
