"""The operators random programs are made of, by family."""

from __future__ import annotations

from collections.abc import Mapping

from tests.fuzz.operators import attention, computed, layers, pointwise, reductions, structure, weights, writes
from tests.fuzz.template import Template

# {family: (how often it is drawn, {name: template})}. A template is called "family: name".
FAMILIES: Mapping[str, tuple[float, Mapping[str, Template]]] = {
    "layers": (6, layers.TEMPLATES),
    "pointwise": (4, pointwise.TEMPLATES),
    "structure": (4, structure.TEMPLATES),
    "reductions": (2.5, reductions.TEMPLATES),
    "attention": (2.5, attention.TEMPLATES),
    "weights": (2.5, weights.TEMPLATES),
    "computed": (2.5, computed.TEMPLATES),
    "writes": (2, writes.TEMPLATES),
}
TEMPLATES: Mapping[str, Template] = {
    f"{family}: {name}": t for family, (_, templates) in FAMILIES.items() for name, t in templates.items()
}
