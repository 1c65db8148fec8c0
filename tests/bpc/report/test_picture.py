"""The pruning pattern as a picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

import passes
from bpc.report.picture import _image, pattern_figure
from bpc.report.summary import summarize


def test_picture_shows_heads_in_three_colours(graph: fx.GraphModule, masks: dict[str, Tensor]) -> None:
    value = next(m for m in summarize(graph, masks).layers[0].attention.matrices if m.title == "value")  # type: ignore[union-attr]
    image = _image(value)  # hidden down, heads across
    assert image.shape == (32, 32, 3)
    blue, yellow, grey = image[0, 8], image[31, 8], image[0, 0]
    assert len({tuple(np.round(c, 3)) for c in (blue, yellow, grey)}) == 3
    assert np.allclose(image[:16, 8:24], blue)
    assert np.allclose(image[16:, 8:24], yellow)
    assert np.allclose(image[:, 24:], grey)


def test_nothing_to_draw_is_said() -> None:
    graph = passes.trace(nn.Linear(3, 3).eval(), torch.randn(2, 3))
    with pytest.raises(ValueError, match="no attention and no FFN"):
        pattern_figure(summarize(graph, None))
