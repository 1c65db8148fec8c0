"""Masks of one linear layer: the weight's block mask, and the bias mask that follows from it."""

from __future__ import annotations

import warnings
from typing import Protocol

import torch
from torch import Tensor, nn

from bpc.scores.binarize import Method, binarize, keep_top, mask_blocks
from bpc.scores.plan import MaskPlan
from bpc.scores.schedule import Schedule
from passes.masks.binarize import expand_blocks

_TIE = 1e-9  # between blocks of one tensor: below the resolution of scores that matter

_NOBODY_DRIVES = (
    "a model with block masks is being trained, and nothing moves their threshold and λ: nothing will be pruned. Train "
    "it with bpc.Trainer(program=...), or call program.set_progress(step / steps) and add program.regularization() to "
    "the loss in every step of a loop of your own"
)


class Decides(Protocol):
    """What a target keeps: `bpc.scores.budget.Budget`."""

    @property
    def is_frozen(self) -> bool: ...

    def kept(self, mask: BlockMask, final: bool) -> Tensor: ...


def _tiles(plan: MaskPlan) -> int:
    """How often the units follow each other in order over the blocks of a paired weight; 0: in another order."""
    if plan.units is None or not plan.unit_count:
        return 0
    count, left = divmod(len(plan.units), plan.unit_count)
    return count if not left and plan.units == tuple(range(plan.unit_count)) * count else 0


class BlockMask(nn.Module):
    """Masks one weight matrix by blocks; ``forward(weight)`` returns the masked weight (straight-through gradient).

    While training, the mask follows the threshold that the schedule has reached; in evaluation mode, and in
    ``mask()``, it uses the final threshold. So evaluation during a run always shows the model that would be
    compiled if training stopped there.

    Args:
        plan: which weight, which blocks, which scores.
        scores: the score tensor named by ``plan.scores``, of shape ``plan.score_shape``.
        method: binarizer. ``magnitude`` ranks blocks by Σ|W| and leaves the scores unused.
        schedule: thresholds (kept fractions for ``topk`` and ``magnitude``).
        min_kept: share of blocks that is kept whatever the threshold says.
        revive: in a forward, leave alone the blocks that another weight's mask takes out as well (``plan.carried``).
    """

    def __init__(
        self,
        plan: MaskPlan,
        scores: nn.Parameter,
        method: Method = "sigmoid_threshold",
        schedule: Schedule | None = None,
        min_kept: float = 0.0,
        revive: bool = False,
    ) -> None:
        super().__init__()
        expected = plan.score_shape
        if tuple(scores.shape) != expected:
            raise ValueError(
                f"scores {plan.scores!r} have shape {tuple(scores.shape)}, but {plan.weight} {plan.shape} in blocks of "
                f"{plan.block} needs {expected}."
            )
        self.plan = plan
        self.scores = scores
        self.method: Method = method
        self.schedule = schedule or Schedule()
        self.min_kept = min_kept
        self.threshold = self.schedule.threshold(0.0)
        self.driven = False  # whether anybody ever moved the threshold
        self.tie = 0.0  # between equal levels of different masks
        self._budget: tuple[Decides] | None = None  # in a tuple: the `MaskSet` registers it
        # -1: what stands behind the scores. On the CPU, even while models are made on meta.
        self._units = None if plan.units is None else torch.tensor(plan.units, device="cpu")
        self._tiles = _tiles(plan)
        self._carried: Tensor | None = None
        if revive and method != "magnitude" and plan.carried is not None:  # magnitudes differ between weights of a unit
            self._carried = torch.tensor(plan.carried, device="cpu").view(plan.grid)
        self.protected: Tensor | None
        self.register_buffer("protected", None, persistent=False)  # bool (gM, gN)
        if self._units is not None and bool((self._units < 0).any()):
            self.protected = (self._units < 0).view(plan.grid)
        # Kept blocks of `magnitude` come from the weight, which only forward() sees; saved so that mask() works alone.
        if method == "magnitude":
            self.register_buffer("magnitudes", torch.full(plan.grid, torch.inf))

    def grid_scores(self) -> Tensor:
        """Scores in the weight's stored layout, shape ``plan.grid``; differentiable."""
        return self._laid_out(self.scores)

    def _laid_out(self, scores: Tensor) -> Tensor:
        """What is said of the scores as they are held, said of the blocks; inf of those that always stay."""
        if self._units is None:
            return scores
        if self._tiles:
            return scores.view(1, -1).expand(self._tiles, -1).reshape(self.plan.grid)
        units = self._units.to(scores.device)
        if not units.is_meta:  # of those there is no way back
            self._units = units
        return nn.functional.pad(scores.flatten(), (0, 1), value=torch.inf)[units].view(self.plan.grid)

    def units_with(self, blocks: Tensor) -> Tensor:
        """Of a paired rule's weight: the units, (units,) bool, that any of ``blocks``, a bool grid, belongs to."""
        assert self._units is not None
        count = self.plan.unit_count
        places = self._units.to(blocks.device).remainder(count + 1)  # -1: what stands behind
        found = torch.zeros(count + 1, device=blocks.device).scatter_reduce(0, places, blocks.flatten().float(), "amax")
        return found[:count] > 0

    @property
    def ranked(self) -> Tensor:
        """What blocks are ranked by: the scores as they are held, or magnitudes."""
        return self.magnitudes if self.method == "magnitude" else self.scores

    @torch.no_grad()
    def levels(self) -> Tensor:
        """Levels of the blocks, float64 (gM, gN): the score, or the share of blocks that rank lower; inf on the floor.

        No two blocks have the same, so that any number of them can be kept.
        """
        ranked = self.ranked.detach()
        places = torch.arange(ranked.numel(), device=ranked.device, dtype=torch.float64) / ranked.numel()
        if self.method == "sigmoid_threshold":
            levels = ranked.double() + _TIE * places.view(ranked.shape)
        else:
            order = ranked.flatten().argsort(stable=True)
            levels = torch.empty_like(places).scatter_(0, order, places).view(ranked.shape)
        levels += self.tie
        if self.min_kept > 0:
            levels[keep_top(ranked, self.min_kept)] = torch.inf
        if self.method != "magnitude":
            levels = self._laid_out(levels)
        return levels if self.protected is None else levels.masked_fill(self.protected.to(levels.device), torch.inf)

    def protect(self, blocks: Tensor) -> None:
        """Keep these blocks, a bool grid (gM, gN), whatever scores and thresholds say."""
        blocks = blocks.to(self.scores.device)
        self.protected = blocks if self.protected is None else blocks | self.protected.to(blocks.device)

    def follow(self, budget: Decides) -> None:
        """Keep what ``budget`` decides, in the place of thresholds of a schedule."""
        self._budget = (budget,)

    def kept_blocks(self, final: bool | None = None) -> Tensor:
        """Bool grid (gM, gN). ``final=None``: the current threshold while training, the final one otherwise."""
        if final is None:
            final = not self.training
        if self._budget is not None:
            return self._budget[0].kept(self, final)
        threshold = self.schedule.final if final else self.threshold
        kept = binarize(self.ranked.detach(), self.method, threshold, self.min_kept)
        if self.method != "magnitude":
            kept = self._laid_out(kept.to(self.scores.dtype)) > 0
        return kept if self.protected is None else kept | self.protected.to(kept.device)

    def mask(self, final: bool | None = True) -> Tensor:
        """Bool tensor of the weight's shape; the final threshold unless ``final`` says otherwise."""
        return expand_blocks(self.kept_blocks(final), self.plan.block)

    def kept_outputs(self, final: bool | None = None) -> Tensor:
        """Output features with at least one kept block: bool, shape (out_features,)."""
        out = self.plan.out_dim
        return self.kept_blocks(final).any(dim=1 - out).repeat_interleave(self.plan.block[out])

    def _read(self) -> Tensor:
        """The blocks of the weight that a forward reads, bool (gM, gN): those that are kept and those carried."""
        kept = self.kept_blocks()
        if self._carried is None:
            return kept
        if self._carried.device != kept.device:
            self._carried = self._carried.to(kept.device)
        return kept | self._carried

    def read_outputs(self) -> Tensor:
        """Output features of which a forward reads a block: bool, shape (out_features,)."""
        out = self.plan.out_dim
        return self._read().any(dim=1 - out).repeat_interleave(self.plan.block[out])

    def bias_mask(self, final: bool | None = True) -> Tensor:
        """Bool tensor (out_features,): the bias of an output feature goes when all its weights are gone."""
        return self.kept_outputs(final)

    def forward(self, weight: Tensor) -> Tensor:
        if self.training and not self.driven and torch.is_grad_enabled():
            self.driven = True  # said once
            warnings.warn(_NOBODY_DRIVES, stacklevel=2)
        if self.method == "magnitude":
            m, n = self.plan.block
            rows, columns = self.plan.grid
            with torch.no_grad():
                self.magnitudes = weight.detach().abs().view(rows, m, columns, n).sum(dim=(1, 3))
        scores = self.grid_scores()
        if self._budget is not None and self._budget[0].is_frozen:
            scores = scores * 0.0  # no gradient, but one for every rank to average
        return mask_blocks(weight, scores, self._read(), self.plan.block)

    def extra_repr(self) -> str:
        return f"{self.plan.weight}, blocks {self.plan.block}, {self.method}, scores={self.plan.scores!r}"


class BiasMask(nn.Module):
    """Masks the bias of a layer whose weight `weight_mask` masks; ``forward(bias)`` returns the masked bias.

    No score gradient flows through the bias: an output feature dies when its last block does (a maximum over
    blocks), and the weight's own gradient already says how much each block is worth.
    """

    def __init__(self, weight_mask: BlockMask) -> None:
        super().__init__()
        # In a tuple: the scores belong to the weight's mask and must not be registered (and saved) twice.
        self._weight_mask = (weight_mask,)

    @property
    def weight_mask(self) -> BlockMask:
        return self._weight_mask[0]

    @property
    def scores(self) -> Tensor:
        """Those of the weight."""
        return self.weight_mask.scores

    def mask(self, final: bool | None = True) -> Tensor:
        """Bool tensor (out_features,)."""
        return self.weight_mask.bias_mask(final)

    def forward(self, bias: Tensor) -> Tensor:
        return bias * self.weight_mask.read_outputs()
