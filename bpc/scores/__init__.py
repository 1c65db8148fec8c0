"""Block scores in front of a model's weights: binarizers, threshold schedule, regulariser."""

from bpc.scores.block_mask import BiasMask, BlockMask
from bpc.scores.mask_set import MaskSet, MaskSettings
from bpc.scores.plan import MaskPlan
from bpc.scores.schedule import Schedule

__all__ = ["BiasMask", "BlockMask", "MaskPlan", "MaskSet", "MaskSettings", "Schedule"]
