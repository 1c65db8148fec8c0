"""What verification refuses."""

from __future__ import annotations

import torch

aten = torch.ops.aten


class VerificationError(RuntimeError):
    """Two graphs that should compute the same function differ; the message names the first value that does."""


class NotFiniteError(VerificationError, ValueError):
    """The masked model has infinities or NaN where they forbid a comparison; the message says where."""
