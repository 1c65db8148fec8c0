"""Models that generate, as ONNX files that take keys and values of earlier tokens and give back those of all.

The layout is the one that optimum made common. A decoder is one file for the prompt (a past of length 0) and for every
token after it; a model with an encoder is three: the encoder, the decoder's first step, and its later steps, which
need not compute the keys and values of the encoder's states again. Each is traced from the small module, whose caches
have the heads that each layer kept, and written by `bpc.emit.onnx.export_onnx`, forms, dtypes and all.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from bpc.emit.axes import AxesError, Layout
from bpc.emit.cached import CacheError
from bpc.emit.check import TOLERANCE, ExportError
from bpc.emit.onnx import OnnxExport, export_onnx
from bpc.emit.steps import Case, decoder_steps, encoder_decoder_steps
from bpc.hub.note import Note, write_note
from bpc.writing import new_files
from passes.frontend.run import in_eval_mode
from passes.frontend.trace import trace
from passes.ir.info import InputError
from passes.verify.run import outputs_of

DECODER, ENCODER = "model.onnx", "encoder_model.onnx"
FIRST_STEP, LATER_STEP = "decoder_model.onnx", "decoder_with_past_model.onnx"
_ENCODER_DECODER = (ENCODER, FIRST_STEP, LATER_STEP)
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")

BATCH, LENGTH, PAST, SOURCE = "batch_size", "sequence_length", "past_sequence_length", "encoder_sequence_length"
ALL = f"{PAST} + {LENGTH}"
_AXES: dict[str, dict[int, str]] = {
    "input_ids": {0: BATCH, 1: LENGTH},
    "position_ids": {0: BATCH, 1: LENGTH},
    "attention_mask": {0: BATCH, 1: ALL},
    "encoder_hidden_states": {0: BATCH, 1: SOURCE},
    "encoder_attention_mask": {0: BATCH, 1: SOURCE},
}

Simplify = Callable[[fx.GraphModule], fx.GraphModule]


@dataclass(frozen=True)
class GenerationExport:
    """What `export_generation` wrote: the directory, and by its name in it each file."""

    directory: Path
    files: Mapping[str, OnnxExport]


def export_generation(
    model: nn.Module,
    directory: str | Path,
    *,
    simplify: Simplify = lambda graph: graph,
    **options: Any,
) -> GenerationExport:
    """Write ``model``, of transformers and able to generate, as ONNX files with caches into a directory.

    A decoder is ``model.onnx``. It takes input_ids (batch, sequence), attention_mask (batch, past + sequence),
    position_ids where the model does, and ``past_key_values.N.key`` and ``.value`` (batch, heads of layer N, past, dim
    of a head). It gives logits and ``present.N.key`` and ``.value``, of past + sequence tokens. A model with an encoder
    is ``encoder_model.onnx``, ``decoder_model.onnx`` and ``decoder_with_past_model.onnx``, whose names say
    ``past_key_values.N.decoder.key``, ``present.N.encoder.value``. config.json and generation_config.json lie beside.

    ``simplify`` makes the graph of each file smaller before it is written. ``options``: see `bpc.export_onnx`. Each
    graph is compared with the model, and each file with its graph, on padded batches with and without a past.

    Raises `ExportError` for a model without such a cache, and where file and model differ; FileExistsError where the
    directory holds a model's weights, whose config.json would be replaced.
    """
    place = Path(directory)
    if held := next((name for name in _WEIGHTS if (place / name).exists()), None):
        raise FileExistsError(f"{place} holds a model ({held}); give the ONNX files a directory of their own")
    if not getattr(model, "can_generate", lambda: False)():
        raise ExportError(f"{type(model).__name__} does not generate text; export it without generation")
    config: Any = model.config
    names = _ENCODER_DECODER if config.is_encoder_decoder else (DECODER,)
    steps = encoder_decoder_steps if config.is_encoder_decoder else decoder_steps
    written: dict[str, OnnxExport] = {}
    stale = [name for file in (DECODER, *_ENCODER_DECODER) for name in (file, f"{file}.data")]
    with new_files(place, keystones=("config.json",), replaces=stale) as staged, in_eval_mode(model):
        try:
            for name, (step, cases) in zip(names, steps(model), strict=True):
                graph = simplify(trace(step, cases[0].inputs))
                layout = None
                if name != ENCODER:  # whose sizes are found, and checked, as those of any other model
                    layout = _layout(step, cases)
                    _compare(step, graph, cases)
                made = export_onnx(graph, staged / name, layout=layout, **options)
                written[name] = replace(made, path=place / name)
        except (CacheError, AxesError) as error:
            raise ExportError(f"{type(model).__name__} cannot be exported for generation: {error}") from error
        _write_configs(model, staged)
    return GenerationExport(place, written)


def _compare(step: nn.Module, graph: fx.GraphModule, cases: Sequence[Case]) -> None:
    """Raises `ExportError` where the graph does not compute what the model does: sizes that the trace did not see."""
    for case in cases:
        expected = outputs_of(step, (), case.inputs)
        try:
            got = outputs_of(graph, (), case.inputs)
        except InputError as error:
            reason = f"the model was traced along a branch that {case.description} does not take"
            raise ExportError(f"{reason}: {error}") from error
        for one, other in zip(got, expected, strict=True):
            scale = max(1.0, float(other.abs().max())) if other.numel() else 1.0
            allowed = scale * TOLERANCE.get(str(other.dtype).removeprefix("torch."), TOLERANCE["float32"]).largest
            if one.shape != other.shape or not bool(((one - other).abs() <= allowed).all()):
                raise ExportError(f"the traced graph is not the model any more with {case.description}")


def _layout(step: nn.Module, cases: Sequence[Case]) -> Layout:
    """Names of the tensors of a step of the decoder: their paths, as ``present.0.key``."""
    with torch.no_grad():
        outputs = dict(_named(step(**cases[0].inputs)))
    inputs = [name for name, _ in _named(cases[0].inputs)]
    has_past = any(name.startswith("past_key_values") for name in inputs)
    length = ALL if has_past else LENGTH

    def shape(name: str, tensor: torch.Tensor) -> tuple[int | str, ...]:
        if name == "logits":
            return BATCH, LENGTH, tensor.shape[2]
        return BATCH, tensor.shape[1], SOURCE if ".encoder." in name else length, tensor.shape[3]

    return Layout(
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        axes={name: _axes(name) for name in inputs},
        shapes={name: shape(name, tensor) for name, tensor in outputs.items()},
        cases=[(case.description, pytree.tree_leaves(pytree.tree_map(_widened, case.inputs))) for case in cases],
    )


def _widened(leaf: Any) -> Any:
    """Caches of a model in half precision, in float32, as its file is made (`bpc.emit.wide`)."""
    is_half = isinstance(leaf, torch.Tensor) and leaf.dtype in (torch.float16, torch.bfloat16)
    return leaf.float() if is_half else leaf


def _axes(name: str) -> dict[int, str]:
    return _AXES.get(name, {0: BATCH, 2: SOURCE if ".encoder." in name else PAST})


def _named(tree: Any) -> Iterator[tuple[str, torch.Tensor]]:
    for path, leaf in pytree.tree_flatten_with_path(tree)[0]:
        yield ".".join(str(getattr(entry, "key", getattr(entry, "idx", ""))) for entry in path), leaf


def _write_configs(model: Any, directory: Path) -> None:
    """config.json without the note of a small module's sizes, which are those of the files' inputs here."""
    config = copy.deepcopy(model.config)
    write_note(config, Note())
    config.save_pretrained(directory)
    model.generation_config.save_pretrained(directory)
