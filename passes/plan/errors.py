"""What a module view refuses."""

from __future__ import annotations


class PlanError(ValueError):
    """Text that is no plan of this version, or a damaged one; the message names the entry."""


class ModuleViewError(RuntimeError):
    """The plan cannot be applied to this module; the message says why. The graph view is not affected.

    ``reason``: what of the plan the forward cannot say, as a clause; empty where something else is wrong.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason
