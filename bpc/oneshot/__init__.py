"""Pruning without training: a few hundred unlabelled examples, minutes, two cores."""

from bpc.oneshot.batches import CalibrationError
from bpc.oneshot.prune import prune_once
from bpc.oneshot.streamed import stream_prune_once
from bpc.oneshot.target import Target, TargetError

__all__ = ["CalibrationError", "Target", "TargetError", "prune_once", "stream_prune_once"]
