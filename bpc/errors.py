"""The class that errors share which a user can mend."""

from __future__ import annotations


class MendableError(ValueError):
    """Something about what was given; the message says what and how. Commands print it without a traceback."""
