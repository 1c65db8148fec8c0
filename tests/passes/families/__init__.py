"""Every architecture of the suite as a tiny random model, with its prunable structure written down by hand.

`FAMILIES` is literal: name -> `Family`; `test_architectures` runs all of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.passes.families.base import Family, make
from tests.passes.families.decoders import DECODERS
from tests.passes.families.encoders import ENCODERS
from tests.passes.families.plain import PLAIN
from tests.passes.families.seq2seq import SEQ2SEQ_MODELS
from tests.passes.families.vision import VISION

__all__ = ["FAMILIES", "Family", "make"]

FAMILIES: Mapping[str, Family] = {**ENCODERS, **VISION, **SEQ2SEQ_MODELS, **DECODERS, **PLAIN}
