"""Block scores in front of a model's weights: binarizers, threshold schedule, regulariser."""

from bpc.masks.block_mask import BiasMask, BlockMask
from bpc.masks.mask_set import MaskSet, MaskSettings
from bpc.masks.plan import MaskPlan
from bpc.masks.schedule import Schedule

__all__ = ["BiasMask", "BlockMask", "MaskPlan", "MaskSet", "MaskSettings", "Schedule"]
