"""Pattern specs: what is masked, in which blocks, and how the masks are learned."""

from bpc.spec.errors import SpecError
from bpc.spec.explain import explain
from bpc.spec.load import SpecLike, change_spec, load_spec
from bpc.spec.presets import PRESETS
from bpc.spec.resolve import resolve
from bpc.spec.schema import Distillation, Regularization, Rule, ScheduleSpec, Scores, Spec, ThresholdSpec

__all__ = [
    "PRESETS",
    "Distillation",
    "Regularization",
    "Rule",
    "ScheduleSpec",
    "Scores",
    "Spec",
    "SpecError",
    "SpecLike",
    "ThresholdSpec",
    "change_spec",
    "explain",
    "load_spec",
    "resolve",
]
