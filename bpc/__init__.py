"""A block-pruning compiler for transformers: a model and a pattern spec in, a smaller dense model out."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bpc.hub.hook import register_when_needed

if TYPE_CHECKING:
    from bpc.dense import DenseModel, load
    from bpc.emit.onnx import export_onnx
    from bpc.hub.widen import widen
    from bpc.oneshot import Target, prune_once
    from bpc.program import Program, compile
    from bpc.spec import Spec, load_spec
    from bpc.train import Seq2SeqTrainer, Trainer
    from bpc.vocabulary.trim import trim_vocabulary

__all__ = [
    "DenseModel",
    "Program",
    "Seq2SeqTrainer",
    "Spec",
    "Target",
    "Trainer",
    "compile",
    "export_onnx",
    "load",
    "load_spec",
    "prune_once",
    "trim_vocabulary",
    "widen",
]

_HOMES = {
    "DenseModel": "bpc.dense",
    "Program": "bpc.program",
    "Seq2SeqTrainer": "bpc.train",
    "Spec": "bpc.spec",
    "Target": "bpc.oneshot",
    "Trainer": "bpc.train",
    "compile": "bpc.program",
    "export_onnx": "bpc.emit.onnx",
    "load": "bpc.dense",
    "load_spec": "bpc.spec",
    "prune_once": "bpc.oneshot",
    "trim_vocabulary": "bpc.vocabulary.trim",
    "widen": "bpc.hub.widen",
}

_PACKAGES = ("bench", "report", "tasks", "train")


def __getattr__(name: str) -> Any:
    """Public names come in when they are used: torch and transformers take seconds, and `bpc --help` needs neither."""
    if name == "__version__":
        from importlib.metadata import version

        return version("block-pruning-compiler")
    if name in _PACKAGES:
        return import_module(f"bpc.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'bpc' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PACKAGES, "__version__"})


register_when_needed()  # from_pretrained loads small models from now on
