"""Pattern specs: what is masked, in which blocks, and how the masks are learned."""

from bpc.spec.presets import PRESETS
from bpc.spec.schema import Rule, Spec

__all__ = ["PRESETS", "Rule", "Spec"]
