"""Masks from anywhere: in memory, in files, from block scores; checked against a traced graph."""

from passes.masks.block_scores import BlockScores
from passes.masks.check import MaskError, check_masks
from passes.masks.files import TensorFile
from passes.masks.sources import MaskSource, resolve_masks

__all__ = ["BlockScores", "MaskError", "MaskSource", "TensorFile", "check_masks", "resolve_masks"]
