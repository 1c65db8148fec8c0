"""Which of a config's ``auto_map`` entries name the file that a self-contained directory brings along.

This text also goes into that file (`bpc.hub.standalone`).
"""

from __future__ import annotations

from typing import Any

FILE = "modeling_bpc"  # the name of its module


def point_to_file(config: dict[str, Any], classes: dict[str, str]) -> None:
    """Let a config's ``auto_map`` name ``classes``, {Auto class: class}, of `FILE`, and no others of it."""
    others = {
        auto: name
        for auto, name in (config.pop("auto_map", None) or {}).items()
        if not isinstance(name, str) or name.rpartition("--")[2].partition(".")[0] != FILE
    }
    if found := others | {auto: f"{FILE}.{name}" for auto, name in classes.items()}:
        config["auto_map"] = found
