"""What a module view refuses."""

from __future__ import annotations

import torch

aten = torch.ops.aten


class ModuleViewError(RuntimeError):
    """The plan cannot be applied to this module; the message says why. The graph view is not affected."""
