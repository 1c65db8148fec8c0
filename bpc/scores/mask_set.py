"""All masks of a program: shared scores, one clock, one regulariser."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bpc.costs import Costs
from bpc.hub.masks import note_masks
from bpc.scores.attach import attach_masks, detach_masks
from bpc.scores.binarize import Method
from bpc.scores.block_mask import BiasMask, BlockMask
from bpc.scores.budget import Budget
from bpc.scores.fragmentation import fragmentation
from bpc.scores.plan import MaskPlan
from bpc.scores.schedule import Schedule
from bpc.scores.sharded import stays_whole
from bpc.scores.units import Units
from passes import MaskError

MODULE_NAME = "block_masks"  # of the MaskSet inside a model it is attached to; part of the checkpoint's key names


@dataclass(frozen=True)
class MaskSettings:
    """What the masks need to know beyond the plans. ``regularization`` maps group names to λ.

    ``revive``: units of paired rules that were pruned learn whether to come back (`bpc.spec.carry`).
    ``fragmentation``: what a padded dim inside heads counts in it, in kept dims.
    """

    method: Method = "sigmoid_threshold"
    schedule: Schedule = field(default_factory=Schedule)
    regularization: Mapping[str, float] = field(default_factory=dict)
    min_kept: float = 0.0
    fragmentation: float = 0.0
    revive: bool = False
    initial_score: float = 0.0


def _go_on_from_loaded(module: nn.Module, _: object) -> None:
    """After a checkpoint was loaded. A function with a name, so that masked models can be pickled."""
    assert isinstance(module, MaskSet)
    if module.budget is not None:
        module.budget.loaded()
    module.set_progress(float(module.progress))


@stays_whole
class MaskSet(nn.Module):
    """Masks for ``plans``. Plans that name the same score key share one tensor.

    Attributes:
        scores: ParameterDict, one tensor per score key ("." in keys is written "/": parameter names have no dots).
        progress: 0..1, last given to `set_progress`; saved in the state dict, so a checkpoint resumes where it stopped.
    """

    progress: Tensor

    def __init__(self, plans: Iterable[MaskPlan], settings: MaskSettings) -> None:
        super().__init__()
        self.plans = tuple(plans)
        self.settings = settings
        self.scores = nn.ParameterDict()
        self._blocks: dict[str, BlockMask] = {}
        self._biases: dict[str, BiasMask] = {}
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))
        self._now = 0.0  # the same as a number: read every step, without waiting for a device
        groups: dict[str, list[str]] = {}
        for plan in self.plans:
            key = plan.scores.replace(".", "/")
            if key not in self.scores:
                self.scores[key] = nn.Parameter(torch.full(plan.score_shape, self.settings.initial_score))
                groups.setdefault(plan.group, []).append(key)
            mask = BlockMask(
                plan,
                self.scores[key],
                self.settings.method,
                self.settings.schedule,
                self.settings.min_kept,
                self.settings.revive,
            )
            self._blocks[plan.weight] = mask
            if plan.bias is not None:
                self._biases[plan.bias] = BiasMask(mask)
        self._in_heads: dict[str, list[MaskPlan]] = {}  # by score tensor: plans of dims inside heads
        for plan in self.plans:
            if plan.stretches:
                self._in_heads.setdefault(plan.scores.replace(".", "/"), []).append(plan)
        self.groups = {group: tuple(keys) for group, keys in groups.items()}
        self.budget: Budget | None = None
        self.register_load_state_dict_post_hook(_go_on_from_loaded)

    def spend(self, units: Sequence[Units], costs: Costs, wanted: float) -> Budget:
        """Let the masks meet ``wanted``, in the unit of ``costs``, in the place of thresholds of the schedule."""
        self.budget = Budget(units, costs, wanted, self._blocks)
        order = {key: number for number, key in enumerate(self.scores)}
        for mask in self._blocks.values():
            mask.tie = 1e-13 * order[mask.plan.scores.replace(".", "/")]
            mask.follow(self.budget)
        return self.budget

    def protect(self, blocks: Mapping[str, Tensor]) -> None:
        """Keep blocks of some weights whatever happens: {weight: bool grid}, as `surviving_blocks` finds them."""
        for weight, grid in blocks.items():
            self._blocks[weight].protect(grid)

    def train(self, mode: bool = True) -> MaskSet:
        """Switch every mask between the current threshold (training) and the final one (evaluation)."""
        super().train(mode)
        for mask in self.modules_by_parameter().values():
            mask.train(mode)
        return self

    def modules_by_parameter(self) -> dict[str, nn.Module]:
        """Parameter name -> the module that masks it (weights and biases), for `passes` and for `attach_masks`."""
        return {**self._blocks, **self._biases}

    def block_mask(self, weight: str) -> BlockMask:
        """The mask of the weight with that parameter name; KeyError if the weight has none."""
        return self._blocks[weight]

    def set_progress(self, progress: float) -> None:
        """Move threshold and λ to where ``progress`` (0..1 of the run) puts them."""
        if not 0.0 <= progress <= 1.0:
            raise ValueError(f"progress is the finished share of the run, between 0 and 1; got {progress}.")
        self._check_held()
        self._now = progress
        self.progress.fill_(progress)
        if self.budget is not None:
            self.budget.advance(self.settings.schedule.remaining(progress))
        for mask in self._blocks.values():
            mask.threshold = self.threshold
            mask.driven = True

    @property
    def threshold(self) -> float:
        """τ now: what σ(S) has to exceed, or the share of blocks that is kept (with a target, of most weights)."""
        if self.budget is not None:
            level = self.budget.threshold
            return _sigmoid(level) if self.settings.method == "sigmoid_threshold" else 1.0 - max(level, 0.0)
        return self.settings.schedule.threshold(self._now)

    @property
    def regularization_ramp(self) -> float:
        """Factor on every λ now, 0..1; 0 once a target has frozen the masks."""
        if self.budget is not None and self.budget.is_frozen:
            return 0.0
        return self.settings.schedule.ramp(self._now)

    @property
    def largest_regularization(self) -> float:
        """The largest group's λ(t), for the log."""
        return max((self.settings.regularization.get(group, 0.0) for group in self.groups), default=0.0) * (
            self.regularization_ramp
        )

    def regularization(self) -> Tensor:
        """Scalar penalty: Σ_g λ_g(t) / #groups · mean over the group's score tensors of (mean σ(S) + f · F).

        f is the settings' ``fragmentation``, F that of `bpc.scores.fragmentation`.
        """
        total = torch.zeros((), device=self.progress.device)
        for group, keys in self.groups.items():
            means = torch.stack([torch.sigmoid(self.scores[key]).mean() + self._padding(key) for key in keys])
            total = total + self.settings.regularization.get(group, 0.0) / len(self.groups) * means.mean()
        return total * self.regularization_ramp

    def _padding(self, key: str) -> Tensor | float:
        """What the regulariser charges for padding inside the heads that one score tensor masks."""
        plans = self._in_heads.get(key, [])
        if not plans or self.settings.fragmentation == 0:
            return 0.0
        scores = self.scores[key]
        kept = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
        for plan in plans:
            mask = self._blocks[plan.weight]
            kept |= mask.units_with(mask.kept_blocks())
        return self.settings.fragmentation * fragmentation(scores, kept, plans[0].stretches)

    def _check_held(self) -> None:
        """Raise `passes.MaskError` where something else stands in the place of scores that the masks read."""
        for mask in self._blocks.values():
            if mask.scores is not self.scores[mask.plan.scores.replace(".", "/")]:
                raise MaskError(
                    f"the scores {mask.plan.scores} were replaced by other tensors, and masks would not follow what "
                    "those learn: load a state dict in place (no assign=True), and move the model as a whole"
                )

    @torch.no_grad()
    def check_scores(self) -> None:
        """Raise `passes.MaskError` for scores that are NaN: they would read as "prune everything"."""
        self._check_held()
        diverged = [name for name, score in self.scores.items() if bool(score.isnan().any())]
        if diverged:
            raise MaskError(
                f"the scores of {diverged[0].replace('/', '.')} ({len(diverged)} of {len(self.scores)} score tensors) "
                "are NaN: the training diverged. Go back to an earlier checkpoint, or start with a lower learning rate"
            )

    @torch.no_grad()
    def masks(self, final: bool = True) -> dict[str, Tensor]:
        """Parameter name -> bool tensor of the parameter's shape (final threshold; ``final=False``: the current).

        Raises `passes.MaskError` for scores that are NaN.
        """
        self.check_scores()
        weights = {name: mask.mask(final) for name, mask in self._blocks.items()}
        return {**weights, **{name: mask.mask(final) for name, mask in self._biases.items()}}

    @torch.no_grad()
    def density(self, final: bool = False) -> float:
        """Kept share of the masked weights' elements (current threshold unless ``final``)."""
        kept = total = 0
        for plan in self.plans:
            blocks = self._blocks[plan.weight].kept_blocks(final)
            kept += int(blocks.sum()) * plan.block[0] * plan.block[1]
            total += plan.shape[0] * plan.shape[1]
        return kept / max(total, 1)

    def attach(self, model: nn.Module) -> None:
        """Put the masks in front of ``model``'s own parameters and register this set as ``model.block_masks``.

        Names of the model's parameters stay as they are; the state dict gains the scores under ``block_masks.``. Its
        config, from now on a copy of its own, says that checkpoints hold unmasked weights.
        """
        attach_masks(model, self.modules_by_parameter())
        if self.settings.method == "magnitude":  # a forward measures the weight, which masks() then ranks by
            parameters = dict(model.named_parameters(remove_duplicate=False))
            with torch.no_grad():
                for name, mask in self._blocks.items():
                    mask(parameters[name])
        model.add_module(MODULE_NAME, self)
        note_masks(model, attached=True)

    def detach(self, model: nn.Module) -> None:
        """Undo `attach`: the plain model with its unmasked weights."""
        detach_masks(model)
        model._modules.pop(MODULE_NAME, None)
        note_masks(model, attached=False)


def _sigmoid(level: float) -> float:
    return 1.0 / (1.0 + math.exp(-level)) if level > -700.0 else 0.0
