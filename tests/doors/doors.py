"""The doors, each tried in a process that knows of the model only what lies in a folder.

python -m tests.doors.doors FOLDER   prints {door: "" where it is open, else why not}, without those that do not apply
"""

from __future__ import annotations

import copy
import json
import pickle
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import bpc  # from_pretrained knows small models from here on
from tests.doors.case import WAYS, Case, first, generated, reason


class Different(Exception):
    """Not what the masked model computes."""


class Doors:
    def __init__(self, folder: Path) -> None:
        self.folder, self.small = folder, folder / "save"
        self.case = Case(**torch.load(folder / "case.pt", weights_only=False))
        self.scratch = Path(tempfile.mkdtemp(dir=folder))
        self.saved = not self.case.made["save"]

    def dense(self) -> Any:
        return bpc.load(self.small) if self.saved else pickle.loads((self.folder / "dense.pkl").read_bytes())

    def module(self) -> Any:
        import transformers

        assert self.case.auto is not None
        return getattr(transformers, self.case.auto).from_pretrained(self.small)

    def same(self, model: Any, share: float = 1e-4) -> None:
        with torch.no_grad():
            found = first(model(**self.case.inputs)).float()
        difference = (found - self.case.outputs).abs().max() / self.case.outputs.abs().max()
        if not difference <= share:
            raise Different(f"outputs differ by {float(difference):.2g} of their largest")

    def load(self) -> None:
        self.same(bpc.load(self.small).module)

    def from_pretrained(self) -> None:
        self.same(self.module())

    def pipeline(self) -> None:
        import transformers

        tasks = {"AutoModelForSequenceClassification": "text-classification", "AutoModel": "feature-extraction"}
        task = tasks.get(str(self.case.auto), "text-generation")
        made = transformers.pipeline(task, str(self.small))  # type: ignore[call-overload]
        made("good bad good")
        self.same(made.model)

    def trainer(self) -> None:
        import transformers

        arguments = transformers.TrainingArguments(str(self.scratch / "run"), report_to="none", use_cpu=True)
        transformers.Trainer(self.module(), arguments).save_model(str(self.scratch / "trained"))
        self.same(getattr(transformers, str(self.case.auto)).from_pretrained(self.scratch / "trained"))

    def generate(self, way: str) -> None:
        if not generated(self.module(), self.case.prompt, WAYS[way]).equal(self.case.tokens[way]):
            raise Different("other tokens than the masked model's")

    def onnx(self, dtype: Any) -> None:
        self.dense().export_onnx(self.scratch / f"{dtype}.onnx", dtype=dtype)

    def onnx_cache(self) -> None:
        self.dense().export_onnx(self.scratch / "generation", generation=True)

    def half(self, dtype: torch.dtype) -> None:
        module = self.dense().to(dtype).module
        inputs = {
            k: v.to(dtype) if torch.is_tensor(v) and v.is_floating_point() else v for k, v in self.case.inputs.items()
        }
        with torch.no_grad():
            found = first(module(**inputs)).float()
        if not (found - self.case.outputs).abs().mean() <= 0.05 * self.case.outputs.abs().max():
            raise Different("outputs differ by more than half precision's rounding")

    def compile(self) -> None:
        self.same(torch.compile(self.dense().module, backend="aot_eager"))

    def copies(self) -> None:
        for dense in (copy.deepcopy(self.dense()), pickle.loads((self.folder / "dense.pkl").read_bytes())):
            self.same(dense.module)
            self.same(dense)

    def lora(self) -> None:
        import peft

        adapted = peft.get_peft_model(self.dense().module, peft.LoraConfig(target_modules="all-linear"))
        self.same(adapted)
        self.same(adapted.merge_and_unload())

    def sentences(self) -> None:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

        texts, found = ["good bad good", "bad"], []
        for directory in (self.folder / "masked", self.small):
            words = Transformer(str(directory))
            found.append(SentenceTransformer(modules=[words, Pooling(32)], device="cpu").encode(texts))
        if not np.allclose(*found, atol=1e-4):
            raise Different("other vectors than the masked model's")

    def applying(self) -> Mapping[str, Callable[[], None]]:
        """What applies to the model, in the order of the page."""
        case, found = self.case, dict[str, Callable[[], None]]()
        if self.saved:
            found |= {"bpc.load": self.load}
            if case.auto:
                found |= {"from_pretrained": self.from_pretrained, "Trainer": self.trainer}
            if case.auto and case.text and case.auto != "AutoModelForSeq2SeqLM":
                found["pipeline"] = self.pipeline
            found |= {f"generate, {way}": lambda w=way: self.generate(w) for way in case.tokens}
            if case.auto == "AutoModel" and case.text:
                found["sentence-transformers"] = self.sentences
        found |= {"ONNX": lambda: self.onnx("float32"), "ONNX int8": lambda: self.onnx("int8")}
        if case.tokens:
            found["ONNX with cache"] = self.onnx_cache
        found |= {"float16": lambda: self.half(torch.float16), "bfloat16": lambda: self.half(torch.bfloat16)}
        return found | {"torch.compile": self.compile, "copy, pickle": self.copies, "LoRA": self.lora}


def main() -> None:
    doors, found = Doors(Path(sys.argv[1])), {}
    for name, door in doors.applying().items():
        try:
            door()
            found[name] = ""
        except Exception as error:
            found[name] = reason(error)
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
