"""Inputs for a file bpc wrote, from the file alone."""

from __future__ import annotations

import json

import numpy as np
import onnx_ir as ir

# Metadata key: {input name: [lowest, highest integer to feed it], axis name: its size in the example}.
INPUTS_KEY = "bpc.inputs"


def random_feed(model: ir.Model, batch: int, length: int) -> dict[str, np.ndarray]:
    """Integers in the example's range, masks that hide nothing, normal floats; other axes at the example's size."""
    ranges = json.loads(model.metadata_props.get(INPUTS_KEY, "{}"))
    generator = np.random.default_rng(0)
    sizes = {"batch": batch, "sequence": length}
    feed: dict[str, np.ndarray] = {}
    for value in model.graph.inputs:
        assert value.shape is not None
        assert value.dtype is not None
        shape = [d if isinstance(d, int) else sizes.get(str(d.value), ranges.get(str(d.value), 2)) for d in value.shape]
        kind = value.dtype.numpy()
        if not (kind == np.bool_ or np.issubdtype(kind, np.integer)):
            feed[str(value.name)] = generator.standard_normal(shape).astype(kind)
            continue
        low, high = ranges.get(value.name, (1, 1))
        feed[str(value.name)] = generator.integers(low, high + 1, shape).astype(kind)
    return feed
