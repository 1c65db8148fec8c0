"""The one error a spec raises."""

from __future__ import annotations


class SpecError(ValueError):
    """A spec that cannot be read, or does not fit the model; the message says where and what to write instead."""
