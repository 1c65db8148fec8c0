"""Exact shrinking of traced transformers: analyses and rewrites on ``torch.fx`` graphs, for any masks from anywhere."""

from passes.driver import ShrinkResult, shrink
from passes.frontend.trace import trace
from passes.ir.info import TraceError
from passes.masks import MaskError
from passes.plan.plan import Plan
from passes.planning import plan_shrink
from passes.verify.errors import VerificationError

__all__ = ["MaskError", "Plan", "ShrinkResult", "TraceError", "VerificationError", "plan_shrink", "shrink", "trace"]
