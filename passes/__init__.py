"""Exact shrinking of traced transformers: analyses and rewrites on ``torch.fx`` graphs, for any masks from anywhere."""

from passes.masks import MaskError
from passes.pipeline import ShrinkResult, shrink
from passes.plan import Plan
from passes.planning import plan_shrink
from passes.program import TraceError, trace
from passes.verify import VerificationError

__all__ = ["MaskError", "Plan", "ShrinkResult", "TraceError", "VerificationError", "plan_shrink", "shrink", "trace"]
