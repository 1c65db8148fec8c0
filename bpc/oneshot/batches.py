"""Calibration data: whatever users hold unlabelled examples in, as batches of a model's keyword arguments."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.data import default_collate

from bpc.errors import MendableError
from bpc.inputs import example_inputs
from passes.ir.info import trace_info

Batch = dict[str, Any]


class CalibrationError(MendableError):
    """Data that a model cannot be calibrated with; the message says what was found and what is needed."""


def calibration_batches(
    model: nn.Module,
    data: Iterable[Any],
    tokenizer: Any = None,
    *,
    samples: int = 512,
    batch_size: int = 32,
    max_length: int = 128,
) -> list[Batch]:
    """Up to ``samples`` examples of ``data`` as batches for ``model``; labels are left out.

    Args:
        data: texts (a tokenizer is needed), rows of a data set ({name: list or tensor of one example}; texts among them
            are not read), or batches ({name: tensor}), such as a DataLoader gives.
        batch_size, max_length: of what is put together here; batches stay as they are. Texts are sorted by length, so
            that little is padding, and then shuffled as batches.

    Raises `CalibrationError` for data without examples, or of another modality than the model's.
    """
    if isinstance(data, str | bytes | Mapping) or not isinstance(data, Iterable):
        raise CalibrationError(
            f"calibration data are a list of texts, a data set or a loader of batches, not a {type(data).__name__}"
        )
    first, rest = _first(data)
    if isinstance(first, str):
        batches = _from_texts([first, *islice(rest, samples - 1)], tokenizer, batch_size, max_length)
    elif isinstance(first, Mapping):
        if _is_batch(model, first):
            batches = _take([dict(first)], rest, samples)
        else:
            batches = _from_rows([first, *islice(rest, samples - 1)], tokenizer, batch_size)
    else:
        raise CalibrationError(
            f"calibration data hold a {type(first).__name__}; give texts, or mappings from input names to values"
        )
    batches = [_inputs_of(model, batch) for batch in batches]
    if hasattr(model, "generate") and "decoder_input_ids" in inspect.signature(model.forward).parameters:
        batches = [batch if "decoder_input_ids" in batch else _with_decoder(model, batch) for batch in batches]
    generator = torch.Generator().manual_seed(0)
    return [batches[i] for i in torch.randperm(len(batches), generator=generator)]


def token_chunks(texts: Iterable[str], tokenizer: Any, *, samples: int, length: int, batch_size: int) -> list[Batch]:
    """Running text for a language model: tokens of all texts in a row, cut into ``samples`` pieces of ``length``.

    Nothing is padded, so that there is no attention mask. Raises `CalibrationError` for text shorter than one piece.
    """
    tokens: list[int] = []
    for text in texts:
        tokens += tokenizer(text + "\n", add_special_tokens=False)["input_ids"]
        if len(tokens) >= samples * length:
            break
    count = min(samples, len(tokens) // length)
    if not count:
        raise CalibrationError(f"the text has {len(tokens)} tokens, fewer than one piece of {length}; give more text")
    pieces = torch.tensor(tokens[: count * length]).view(count, length)
    return [{"input_ids": piece} for piece in pieces.split(batch_size)]


def trace_example(model: nn.Module, batch: Batch) -> Batch:
    """The keyword arguments to trace ``model`` with: the batch, at least two rows of it, the cache switched off."""
    rows = examples_of(batch)
    example = {
        k: v.repeat_interleave(2, 0) if isinstance(v, Tensor) and v.dim() and rows == 1 else v for k, v in batch.items()
    }
    if "use_cache" in inspect.signature(model.forward).parameters:
        example["use_cache"] = False
    return example


def as_traced(graph: fx.GraphModule, batch: Batch) -> Batch:
    """The batch with the example's constants (``use_cache=False``) and nothing the graph does not take."""
    example = trace_info(graph).kwargs
    constants = {name: value for name, value in example.items() if not isinstance(value, Tensor)}
    missing = example.keys() - constants.keys() - batch.keys()
    if missing:
        raise CalibrationError(f"the batches do not all have the same inputs: one lacks {sorted(missing)[0]!r}")
    return {name: batch[name] if name in batch else constants[name] for name in example}


def valid_rows(batch: Batch, value: Tensor) -> Tensor | None:
    """Which rows of ``value`` (…, features) are tokens and no padding: bool of its leading shape; None for all.

    Told from the batch's attention masks by their shape, or their size where all rows lie in one dim; of two that fit,
    the encoder's.
    """
    for name in sorted(batch, key=len):
        mask = batch[name]
        if name.endswith("attention_mask") and isinstance(mask, Tensor):
            if mask.shape == value.shape[:-1]:
                return mask.bool()
            if value.dim() == 2 and len(value) == mask.numel():
                return mask.bool().flatten()
    return None


def examples_of(batch: Mapping[str, Any]) -> int:
    """How many examples a batch holds."""
    return max((v.shape[0] for v in batch.values() if isinstance(v, Tensor) and v.dim()), default=1)


def tokens_of(batch: Batch, value: Tensor) -> Tensor:
    """The rows of ``value`` that are no padding, as (tokens, features)."""
    rows = valid_rows(batch, value)
    return value.flatten(0, -2) if rows is None else value[rows]


def _first(data: Iterable[Any]) -> tuple[Any, Iterable[Any]]:
    rest = iter(data)
    for first in rest:
        return first, rest
    raise CalibrationError("the calibration data hold no examples")


def _from_texts(texts: Sequence[str], tokenizer: Any, batch_size: int, max_length: int) -> list[Batch]:
    if tokenizer is None:
        raise CalibrationError("the calibration data are texts: give the model's tokenizer as well")
    padding = tokenizer.pad_token is not None
    batches = []
    ordered = sorted(texts, key=len)
    for start in range(0, len(ordered), batch_size if padding else 1):
        chunk = ordered[start : start + (batch_size if padding else 1)]
        batches.append(
            dict(tokenizer(chunk, padding=padding, truncation=True, max_length=max_length, return_tensors="pt"))
        )
    return batches


def _from_rows(rows: Sequence[Mapping[str, Any]], tokenizer: Any, batch_size: int) -> list[Batch]:
    numbers = [{k: v for k, v in row.items() if not isinstance(v, str) and v is not None} for row in rows]
    if not numbers[0]:
        raise CalibrationError(
            f"the rows of the calibration data hold texts only ({', '.join(rows[0])}); give the column of texts itself"
        )
    numbers = [row for row in numbers if row.keys() == numbers[0].keys()]
    if "input_ids" in numbers[0]:
        numbers.sort(key=lambda row: len(row["input_ids"]))
    chunks = [numbers[i : i + batch_size] for i in range(0, len(numbers), batch_size)]
    if tokenizer is not None and "input_ids" in numbers[0]:
        known = {"input_ids", *getattr(tokenizer, "model_input_names", ())}
        return [
            dict(tokenizer.pad([{k: v for k, v in row.items() if k in known} for row in chunk], return_tensors="pt"))
            for chunk in chunks
        ]
    try:
        return [default_collate([{k: torch.as_tensor(v) for k, v in row.items()} for row in chunk]) for chunk in chunks]
    except (RuntimeError, TypeError, ValueError) as error:
        raise CalibrationError(
            f"the rows of the calibration data do not stack into batches ({error}); give a tokenizer that pads them, "
            "or batches"
        ) from error


def _take(batches: list[Batch], rest: Iterable[Any], samples: int) -> list[Batch]:
    seen = examples_of(batches[0])
    for batch in rest:
        if seen >= samples:
            break
        batches.append(dict(batch))
        seen += examples_of(batch)
    return batches


def _is_batch(model: nn.Module, row: Mapping[str, Any]) -> bool:
    """Whether the main input has the rank of a batch of examples."""
    example = example_inputs(model)
    for name, value in example.items():
        if isinstance(value, Tensor) and name in row:
            return isinstance(row[name], Tensor) and row[name].dim() == value.dim()
    return all(isinstance(value, Tensor) and value.dim() > 1 for value in row.values())


def _inputs_of(model: nn.Module, batch: Batch) -> Batch:
    parameters = inspect.signature(model.forward).parameters
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    example = example_inputs(model)
    known = {name for name in parameters if "label" not in name} - {"start_positions", "end_positions"}
    inputs = {k: v for k, v in batch.items() if isinstance(v, Tensor) and (k in known or (anything and k in example))}
    main = getattr(model, "main_input_name", None) or next(iter(example), None)
    if main is not None and main not in inputs and not ("inputs_embeds" in inputs and main == "input_ids"):
        raise CalibrationError(
            f"the calibration data have no {main!r}, which {type(model).__name__} reads; they have "
            f"{', '.join(map(str, batch)) or 'nothing'}"
        )
    if not inputs:
        raise CalibrationError(f"the calibration data have no input of {type(model).__name__}: {', '.join(batch)}")
    return inputs


def _with_decoder(model: Any, batch: Batch, tokens: int = 32) -> Batch:
    """The decoder reads what the model itself writes, token by token. Raises `CalibrationError` on the meta device."""
    if any(parameter.is_meta for parameter in model.parameters()):
        raise CalibrationError(
            "what the decoder reads is written by the model itself, which is not in memory: give batches with "
            "decoder_input_ids (in Python), or leave out --stream"
        )
    with torch.no_grad():
        written = model.generate(**batch, max_new_tokens=tokens, do_sample=False, num_beams=1)
    return {**batch, "decoder_input_ids": written[:, :-1] if written.shape[1] > 1 else written}
