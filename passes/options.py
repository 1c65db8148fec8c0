"""What users may ask of a shrink; one object that travels from the public verbs to the passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Granularity = Literal["dims", "even", "heads", "units"]


@dataclass(frozen=True)
class ShrinkOptions:
    """How finely a model is cut.

    ``granularity``, of attention:
        dims    heads and the dims inside them
        even    the same, but q, k and v keep as many dims as each other, and layers that share a table the same of it
        heads   whole heads, all of the same size
        units   no heads: only what is not viewed as (heads, dims), such as FFN dims
    ``multiple``: keep dead (zero) dims until every count of FFN dims, and of dims per head, divides by it.

    Raises ValueError for anything else.
    """

    granularity: Granularity = "dims"
    multiple: int = 1

    def __post_init__(self) -> None:
        if self.granularity not in get_args(Granularity):
            raise ValueError(f"granularity={self.granularity!r} is not one of {', '.join(get_args(Granularity))}")
        if self.multiple < 1:
            raise ValueError(f"multiple={self.multiple}: counts can be rounded up to 1 or more")
