"""The directory a small model is saved in.

It holds what transformers writes and reads: ``config.json`` with a note of the sizes (`bpc.hub.note`) and weights;
``bpc.json``: the last shrink's plan of the module, what its graph was cut to, and the example inputs;
``certificate.json`` of the last shrink, unless the weights have changed since; and a model card. Nothing in it is
unpickled when it is loaded.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from bpc.configs import ConfigError
from bpc.hub import card, standalone
from bpc.hub.load import WEIGHT_FILES, load_module
from bpc.hub.note import METHOD, NoteError
from bpc.hub.repository import local_directory
from bpc.hub.sizes import unsavable
from bpc.plan_file import ExampleEntries, PlanFile, TensorEntry, ValueEntry, plan_text
from bpc.wrapped import refuse_adapters
from bpc.writing import new_files
from passes.certificate import Certificate, CertificateError
from passes.options import Granularity
from passes.plan.data import PlanData
from passes.plan.plan import ModuleView, Plan

PLAN_FILE = "bpc.json"
WEIGHTS_FILE = "model.safetensors"
EXAMPLE_FILE = "bpc_example.safetensors"
CERTIFICATE_FILE = "certificate.json"
_REPLACED = (*WEIGHT_FILES, "generation_config.json", EXAMPLE_FILE, CERTIFICATE_FILE, standalone.NAME)

Example: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]


class LoadError(RuntimeError):
    """A directory is no saved dense model, or a broken one; the message names the file."""


@dataclass(frozen=True)
class GraphCuts:
    """What a shrink announced of the graph view, which a module may not be able to follow.

    ``plan``: its cuts. ``parameters``: entries of what the graph reads. ``granularity``, ``multiple``: as asked for.
    """

    plan: Plan
    parameters: int
    granularity: Granularity
    multiple: int


def is_dense_directory(path: str | Path) -> bool:
    """The directory was written by `DenseModel.save_pretrained`."""
    return (Path(path) / PLAN_FILE).is_file()


def holds_other_model(path: str | Path) -> bool:
    """The directory has a model's config.json and is none of bpc's: nothing of it may be replaced."""
    return (Path(path) / "config.json").exists() and not is_dense_directory(path)


@dataclass(frozen=True)
class Saved:
    """The content of a directory. ``graph``: None where a version of bpc wrote it that did not say."""

    view: ModuleView
    graph: GraphCuts | None
    example: Example
    certificate: Certificate | None


@dataclass(frozen=True)
class WrittenWeights:
    """Weights of a small model that lie in files already, for `write_directory` to take.

    ``files``: {name: (file, sha256)}. ``index``: the text of the index file, where there is more than one.
    """

    files: Mapping[str, tuple[Path, str]]
    index: str | None = None

    def move_to(self, directory: Path) -> None:
        for name, (file, _) in self.files.items():
            os.replace(file, directory / name)
        if self.index is not None:
            (directory / f"{WEIGHTS_FILE}.index.json").write_text(self.index, encoding="utf-8")

    def hashes(self) -> dict[str, str]:
        return {name: digest for name, (_, digest) in self.files.items()}


def write_directory(
    path: str | Path,
    saved: Saved,
    *,
    weights: WrittenWeights | None = None,
    without_bpc: bool = False,
    chosen: Any = None,
    **options: Any,
) -> None:
    """Write a small model, whose config has its sizes noted, as a directory that `read_directory` reads.

    ``weights``: where they lie; the module may be on the meta device then. Default: the module's.
    ``without_bpc``: with the file that loads it on a machine that has no bpc. ``chosen``: see `bpc.hub.card`.
    The files are staged first (`bpc.writing`): an interrupted save leaves what was there. Those of an earlier save go,
    others stay. Raises NotADirectoryError where ``path`` is a file, FileExistsError where it holds a model that bpc did
    not write, ValueError for a module with adapters of peft, and TypeError for one without a transformers config.
    """
    target = Path(path)
    module: Any = saved.view.module
    refuse_adapters(module)
    if holds_other_model(target):
        raise FileExistsError(
            f"{target} holds a model that bpc did not write (config.json without {PLAN_FILE}), which would be "
            "replaced; give another directory, or remove it first"
        )
    if not hasattr(module, "save_pretrained") or not hasattr(getattr(module, "config", None), "save_pretrained"):
        raise TypeError(
            f"{type(module).__name__} has no transformers config to save; keep its state_dict and "
            "`plan.to_json()`, or export the graph view (export_onnx, torch.export.save)"
        )
    if reason := unsavable(module):
        raise NoteError(reason)
    with new_files(target, keystones=("config.json", PLAN_FILE), replaces=_REPLACED) as work:
        if weights is None:
            module.save_pretrained(work, **options)
        else:
            module.save_pretrained(work, state_dict={})  # config.json and what else belongs to it
            for empty in (file for pattern in WEIGHT_FILES for file in work.glob(pattern)):
                empty.unlink()
            weights.move_to(work)
        if without_bpc:
            standalone.make_standalone(work, module)
        else:
            standalone.forget_standalone(work)
        if card.is_ours(target / card.NAME):
            text = card.card(module, saved.certificate, without_bpc, chosen)
            (work / card.NAME).write_text(text, encoding="utf-8")
        content = {
            "plans": [saved.view.plan.plain()],
            "granularity": saved.view.granularity,
            "refusal": saved.view.refusal,
            "surplus": saved.view.surplus,
            "graph": None if saved.graph is None else {**vars(saved.graph), "plan": saved.graph.plan.plain()},
            "example": _store_example(saved.example, work / EXAMPLE_FILE),
        }
        known = None if weights is None else weights.hashes()
        if saved.certificate is not None:
            (work / CERTIFICATE_FILE).write_text(saved.certificate.to_json())
        (work / PLAN_FILE).write_text(plan_text(content, work.glob("*.safetensors"), known))


def read_directory(
    path: str | Path, *, revision: str | None = None, check_hashes: bool = True, **options: Any
) -> Saved:
    """Read what `write_directory` of this or an earlier version wrote.

    ``path``, ``revision``: see `bpc.hub.repository.local_directory`. ``check_hashes``: False where another program has
    written the weights since. ``options``: as for `bpc.hub.load.load_module`. Raises `LoadError`, and nothing else,
    naming the file.
    """
    try:
        directory = local_directory(path, revision, code=bool(options.get("trust_remote_code")))
    except NoteError as error:
        raise LoadError(str(error)) from error
    try:
        stored = PlanFile((directory / PLAN_FILE).read_bytes(), check_hashes=check_hashes)
        if check_hashes and (changed := stored.changed_file(directory)) is not None:
            raise LoadError(
                f"{changed} is not the file that {PLAN_FILE} was written with: it is damaged, or another program has "
                "written it since. If it is meant, bpc.load(..., check_hashes=False) reads it; save it again then"
            )
        content, plan = stored.content, stored.graph_plan
        example = _read_example(content.example, directory / EXAMPLE_FILE)
        certificate = _read_certificate(directory / CERTIFICATE_FILE)
    except FileNotFoundError as error:
        raise LoadError(
            f"{directory} is no saved dense model: {error.filename} is missing{_by_transformers(directory)}"
        ) from None
    except OSError as error:
        raise LoadError(f"{directory} cannot be read: {error}") from error
    except ValueError as error:
        raise LoadError(f"{directory / PLAN_FILE} is damaged: {error}") from error
    graph = None
    if content.graph is not None and plan is not None:
        graph = GraphCuts(plan, content.graph.parameters, content.graph.granularity, content.graph.multiple)
    module = _build(directory, stored.plans, options)
    view = ModuleView(module, stored.plans[-1], content.granularity, content.refusal, content.surplus)
    return Saved(view, graph, example, certificate)


def _by_transformers(directory: Path) -> str:
    """What to do with a small module that transformers, a Trainer or sentence-transformers saved; "" for all else."""
    try:
        content = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        noted = content["quantization_config"]["quant_method"] == METHOD
    except (OSError, ValueError, TypeError, LookupError):
        return ""
    return (
        ". It holds a small model as transformers saves one: read it with from_pretrained of its class, "
        "such as AutoModelForSequenceClassification, after import bpc"
        if noted
        else ""
    )


def _read_certificate(file: Path) -> Certificate | None:
    try:
        return Certificate.from_json(file.read_text(encoding="utf-8")) if file.exists() else None
    except (CertificateError, UnicodeDecodeError) as error:
        raise LoadError(f"{file}: {error}; without the file the model loads, and nothing vouches for it") from error


def _build(directory: Path, plans: Sequence[PlanData], options: dict[str, Any]) -> nn.Module:
    try:
        return load_module(directory, plans, **options)
    except (NoteError, ConfigError) as error:
        raise LoadError(f"{directory}: {error}") from error
    except Exception as error:  # from the model's own class, given a config that may be damaged: anything
        kind = "" if isinstance(error, ValueError | RuntimeError | OSError) else f"{type(error).__name__}: "
        raise LoadError(f"{directory}: the weights do not fit config.json and the plan: {kind}{error}") from error


# ------------------------------------------------------------------------------------------------ example inputs


def _store_example(example: Example, file: Path) -> dict[str, Any]:
    """Tensors go to the safetensors file, plain values into the returned JSON."""
    tensors: dict[str, torch.Tensor] = {}

    def plain(key: str, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            tensors[key] = value.detach().clone().contiguous()  # one tensor may be given twice
            return {"tensor": key}
        if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
            return {"value": value}
        if isinstance(value, float):
            raise TypeError(f"example input {key} is {value}; only finite numbers can be saved")
        raise TypeError(f"example input {key} is a {type(value).__name__}; only tensors and plain values can be saved")

    args, kwargs = example
    described = {
        "args": [plain(f"args.{i}", a) for i, a in enumerate(args)],
        "kwargs": {name: plain(f"kwargs.{name}", value) for name, value in kwargs.items()},
    }
    save_file(tensors, str(file))
    return described


def _read_example(described: ExampleEntries, file: Path) -> Example:
    try:
        tensors = load_file(str(file))
    except (SafetensorError, RuntimeError, LookupError) as error:
        raise LoadError(f"{file} is damaged: {error}") from error

    def value(entry: TensorEntry | ValueEntry) -> Any:
        if isinstance(entry, ValueEntry):
            return entry.value
        if entry.tensor not in tensors:
            raise ValueError(f"example: {file.name} has no tensor {entry.tensor!r}")
        return tensors[entry.tensor]

    return tuple(map(value, described.args)), {name: value(entry) for name, entry in described.kwargs.items()}
