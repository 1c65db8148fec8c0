"""What users may ask for, and what is refused."""

from __future__ import annotations

import pytest

from passes.options import ShrinkOptions


def test_other_values_are_refused_with_what_there_is() -> None:
    assert ShrinkOptions("units", 8).multiple == 8
    with pytest.raises(ValueError, match="granularity='rows' is not one of dims, even, heads, units"):
        ShrinkOptions("rows")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="multiple=0: counts can be rounded up to 1 or more"):
        ShrinkOptions(multiple=0)
