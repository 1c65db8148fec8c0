"""What a narrower residual stream does to a model's file: parameters, bytes, exactness, ONNX, reloading.

    python benchmarks/residual_width.py MODEL_DIR --keep 256

Channels are drawn at random (``--seed``): this measures sizes and exactness, and says nothing of quality, for which a
width has to be chosen and the model trained afterwards.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import onnxruntime
import torch
from transformers import AutoModel

import bpc
import passes
from bpc.dense import DenseModel


def size(path: Path) -> float:
    """In MB."""
    return path.stat().st_size / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--keep", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    model = AutoModel.from_pretrained(given.model).eval()
    example = {"input_ids": torch.randint(5, 1000, (2, 16)), "attention_mask": torch.ones(2, 16, dtype=torch.long)}
    graph = passes.trace(model, example)
    width = torch.zeros(model.config.hidden_size, dtype=torch.bool)
    width[torch.randperm(len(width), generator=torch.Generator().manual_seed(given.seed))[: given.keep]] = True
    result = passes.shrink(graph, width=width)
    print(result.report)
    dense = DenseModel.from_shrink(result, model)
    with tempfile.TemporaryDirectory() as folder:
        directory, file = Path(folder) / "small", Path(folder) / "small.onnx"
        model.save_pretrained(Path(folder) / "whole")
        dense.save_pretrained(directory)
        dense.export_onnx(file)
        whole, small = (size(d / "model.safetensors") for d in (Path(folder) / "whole", directory))
        print(f"model.safetensors: {whole:.1f} MB, {small:.1f} MB with {given.keep} channels; ONNX {size(file):.1f} MB")
        fresh = {"input_ids": torch.randint(5, 1000, (3, 23)), "attention_mask": torch.ones(3, 23, dtype=torch.long)}
        with torch.no_grad():
            expected = dense.graph_module(**fresh)[0]
            again = {
                "module": dense.module(**fresh)[0],
                "from_pretrained": AutoModel.from_pretrained(directory).eval()(**fresh)[0],
                "bpc.load": bpc.load(directory)(**fresh)[0],
            }
        session = onnxruntime.InferenceSession(str(file))
        feed = {i.name: fresh[i.name].numpy() for i in session.get_inputs()}
        again["ONNX Runtime"] = torch.from_numpy(session.run(None, feed)[0])
        scale = float(expected.abs().max())
        for name, actual in again.items():
            print(
                f"{name}: {tuple(actual.shape)}, off by {float((actual - expected).abs().max()) / scale:.1e} of scale"
            )


if __name__ == "__main__":
    main()
