"""Checkpoints of a training with block masks hold unmasked weights beside the scores; their config says so.

`from_pretrained` would drop the scores and make an unmasked model of them, with one line in a log.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from bpc.hub.note import NoteError, note_of, parts_of, write_note


def note_masks(model: nn.Module, attached: bool) -> None:
    """Say in a model's config whether block masks are in front of its weights.

    The model gets a config of its own: the one it has may be its teacher's too.
    """
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "save_pretrained"):
        return
    own = copy.deepcopy(config)
    try:
        write_note(own, note_of(config).model_copy(update={"masked": attached}))
    except NoteError:  # another tool's note stands there, and that tool loads the model
        return
    new = {id(config): own} | {id(part): parts_of(own)[name] for name, part in parts_of(config).items()}
    for module in model.modules():
        if (replacing := new.get(id(module.__dict__.get("config")))) is not None:
            module.config = replacing


def without_masks(config: Any) -> Any:
    """A copy of a config for loading the unmasked weights, to which the caller applies the masks."""
    own = copy.deepcopy(config)
    if (note := note_of(config)).masked:
        write_note(own, note.model_copy(update={"masked": False}))
    return own
