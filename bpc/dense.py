"""`DenseModel`: the small model in two views, and the directory format it is saved in.

A saved directory holds ``config.json`` (transformers' own), ``model.safetensors`` and ``bpc.json``: the plans (shapes,
folded biases, head counts), one per shrink the model went through, and the example inputs. Nothing in it is unpickled
when it is loaded.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import fx, nn

from passes.driver import TOLERANCE, ShrinkResult, least_precise, shrink
from passes.frontend.trace import trace
from passes.ir.info import trace_info
from passes.ir.manager import PassManager
from passes.masks import MaskError, TensorFile
from passes.plan.check import Check, example_check
from passes.plan.data import Plan
from passes.plan.errors import ModuleViewError
from passes.plan.numbers import attributes_of
from passes.report import ShrinkReport
from passes.rewrite.replace_constants import ReplaceConstants
from passes.rewrite.shrink_dims import Granularity

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from bpc.emit.onnx import Dtype
    from bpc.emit.recipe import Target

PLAN_FILE = "bpc.json"
WEIGHTS_FILE = "model.safetensors"
EXAMPLE_FILE = "bpc_example.safetensors"
_HISTORY = "bpc_plans"  # attribute of a small module: the plans that led from its config's shapes to its own


class LoadError(RuntimeError):
    """A directory is no saved dense model, or a broken one; the message names the file."""


class _History(tuple[Plan, ...]):
    """Plans, oldest first. They never change: copies of a module share them."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _History:
        return self


class DenseModel:
    """A smaller dense model: ``graph_module`` for compilers, ``module`` for the ecosystem.

    ``report`` says what was removed, what stayed and why, and how far the small model is from the masked one (None
    after loading). ``plan`` is the same as data.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        module: Callable[[], nn.Module],
        example_inputs: tuple[tuple[Any, ...], dict[str, Any]],
        graph_module: fx.GraphModule | None = None,
        report: ShrinkReport | None = None,
    ) -> None:
        self.plan = plan
        self.report = report
        self.module_granularity: Granularity = "dims"
        self.example_inputs = example_inputs
        self._make_module = module
        self._graph = graph_module
        self._module: nn.Module | None = None
        self._traced: tuple[Any, ...] | None = None  # the module's state that the graph shows

    @staticmethod
    def from_shrink(result: ShrinkResult, masked_model: nn.Module) -> DenseModel:
        """From `passes.shrink` and the model it was made from, masks applied to its weights.

        The module view is built, and checked against the graph view on the example inputs, when it is first asked for.
        """
        graph = result.graph_module
        info = trace_info(graph)

        def build() -> nn.Module:
            check = example_check(graph, 10 * TOLERANCE[least_precise(graph)])
            dense.module_granularity, dense.plan, small = _module_view(result.plan, masked_model, check)
            _remember(small, (*_history(masked_model), dense.plan))
            return small

        dense = DenseModel(
            result.plan,
            module=build,
            example_inputs=(info.args, info.kwargs),
            graph_module=graph,
            report=result.report,
        )
        return dense

    @property
    def graph_module(self) -> fx.GraphModule:
        """The small graph: feeds ONNX, torch.compile and ``.pt2``. Sublayers that died are gone from it.

        Made anew where ``module`` has been trained, cast or loaded into since: a graph has constants computed from
        weights, so that sharing parameters would not do.
        """
        if self._graph is None or (self._module is not None and _state(self._module) != self._traced):
            self._graph = _graph_of(self.module, self.example_inputs)
            self._traced = _state(self.module)
        return self._graph

    @property
    def module(self) -> nn.Module:
        """The user's model with smaller layers. A sublayer that died keeps one zero head or dim.

        Where the forward has one head size for all of a layer, or one head count for all layers, the module keeps more
        than the graph (`module_granularity` says: "dims", "even", "heads" or "units"). Raises
        `passes.module_view.ModuleViewError` where the model's forward cannot follow; the graph view can.
        """
        if self._module is None:
            self._module = self._make_module()
            self._traced = _state(self._module)
        return self._module

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the graph view, without gradients. Raises TypeError for inputs that it was not traced with."""
        graph = self.graph_module
        signature = inspect.signature(graph.forward)
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(
                f"{error}: the graph takes {', '.join(signature.parameters)}, as in the example it was traced with; "
                "use `module`, or compile with example_inputs that have all that will be given"
            ) from None
        with torch.no_grad():
            return graph(*args, **kwargs)

    def __repr__(self) -> str:
        return f"DenseModel({self.report or 'loaded'})"

    def export_onnx(self, path: str | Path, target: Target = "cpu", dtype: Dtype = "float32", **options: Any) -> Any:
        """Write an ONNX file; see `bpc.export_onnx`."""
        from bpc.emit import export_onnx

        return export_onnx(self, path, target=target, dtype=dtype, **options)

    def save_pretrained(self, path: str | Path) -> None:
        """Write a directory that `load` reads: config.json, model.safetensors, bpc.json.

        The directory is written beside ``path`` first and then renamed file by file, so that an interrupted save leaves
        what was there. Raises NotADirectoryError where ``path`` is a file, `ModuleViewError` for a model without a
        module view, and TypeError for one without a transformers config (save its graph: ``torch.export.save``).
        """
        target = Path(path)
        if target.exists() and not target.is_dir():
            raise NotADirectoryError(f"{target} is a file; give a directory to save the model in")
        module = self.module
        config: PretrainedConfig | None = getattr(module, "config", None)
        if config is None or not hasattr(config, "save_pretrained"):
            raise TypeError(
                f"{type(module).__name__} has no transformers config to save; keep its state_dict and "
                "`plan.to_json()`, or export the graph view (export_onnx, torch.export.save)"
            )
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as staging:
            work = Path(staging)
            config.architectures = [type(module).__name__]
            config.dtype = getattr(module, "dtype", None)
            config.save_pretrained(work)
            generation = getattr(module, "generation_config", None)
            if generation is not None:
                generation.save_pretrained(work)
            save_model(module, str(work / WEIGHTS_FILE))
            example = _store_example(self.example_inputs, work / EXAMPLE_FILE)
            plans = [json.loads(plan.to_json()) for plan in _history(module)]
            content = {"format": 2, "plans": plans, "example": example}
            (work / PLAN_FILE).write_text(json.dumps(content))
            for file in sorted(work.iterdir()):
                os.replace(file, target / file.name)


def _module_view(plan: Plan, model: nn.Module, check: Check) -> tuple[Granularity, Plan, nn.Module]:
    """The smallest module the model's own forward can run: with head dims cut, evenly cut, whole heads, no heads."""
    try:
        small = plan.apply_to(model, check=check)
        return "dims", attributes_of(plan, model, small), small
    except ModuleViewError as error:
        refusal = error
    graph = trace(model, dict(check.kwargs) or check.args)
    coarser: tuple[Granularity, ...] = ("even", "heads", "units")
    for granularity in coarser:
        plan = shrink(graph, granularity=granularity, verify=False).plan
        try:
            small = plan.apply_to(model, check=check)
            return granularity, attributes_of(plan, model, small), small
        except ModuleViewError:
            continue
    raise refusal


def _history(module: nn.Module) -> _History:
    found: _History = module.__dict__.get(_HISTORY, _History())
    return found


def _remember(module: nn.Module, plans: Iterable[Plan]) -> None:
    """Note on a small module how it came about, so that it can be shrunk again and still be saved."""
    module.__dict__[_HISTORY] = _History(dataclasses.replace(plan, example=None) for plan in plans)


def _state(module: nn.Module) -> tuple[Any, ...]:
    """Changes when a weight does: every write in place counts up a tensor's version."""
    tensors = (*module.parameters(), *module.buffers())
    # Tensors made under torch.inference_mode keep no count; they are not trained either.
    return tuple((t.data_ptr(), 0 if t.is_inference() else t._version, t.dtype, t.device) for t in tensors)


def _graph_of(module: nn.Module, example: tuple[tuple[Any, ...], dict[str, Any]]) -> fx.GraphModule:
    """The graph of a small module on the CPU, its dead sublayers replaced by their constants."""
    if any(parameter.device.type != "cpu" for parameter in module.parameters()):
        module = copy.deepcopy(module).cpu()
    args, kwargs = example
    return PassManager((ReplaceConstants(),)).run(trace(module, kwargs or args)).graph_module


def is_dense_directory(path: str | Path) -> bool:
    """The directory was written by `DenseModel.save_pretrained`."""
    return (Path(path) / PLAN_FILE).is_file()


def load(path: str | Path) -> DenseModel:
    """Load what `DenseModel.save_pretrained` wrote. Raises `LoadError`, naming the file, for anything else."""
    directory = Path(path)
    try:
        content = json.loads((directory / PLAN_FILE).read_text())
        if content.get("format") not in (1, 2):
            raise LoadError(
                f"{directory / PLAN_FILE}: format {content.get('format')!r} is unknown to this version of bpc"
            )
        stored = content["plans"] if content["format"] == 2 else [content["plan"]]
        plans = [Plan.from_json(json.dumps(plan)) for plan in stored]
        last = plans[-1]
        args, kwargs = _read_example(content["example"], directory / EXAMPLE_FILE)
    except FileNotFoundError as error:
        raise LoadError(f"{directory} is no saved dense model: {error.filename} is missing") from None
    except (ValueError, LookupError, TypeError, SafetensorError) as error:
        raise LoadError(f"{directory / PLAN_FILE} is damaged: {error}") from error
    module = _build(directory, plans)
    return DenseModel(last, module=lambda: module, example_inputs=(args, kwargs))


def _build(directory: Path, plans: list[Plan]) -> nn.Module:
    """The original architecture, cut to one plan's shapes after the other, with the saved weights in their dtypes."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(directory)
    names = config.architectures or []
    architecture = getattr(transformers, names[0], None) if names else None
    if architecture is None:
        raise LoadError(f"{directory / 'config.json'}: transformers has no architecture {names}")
    try:
        module = architecture(config)
        for plan in plans:
            module = plan.apply_to(module)
        state = module.state_dict(keep_vars=True)
        for name, tensor in TensorFile(directory / WEIGHTS_FILE).items():
            if name in state:
                state[name].data = state[name].data.to(tensor.dtype)
        load_model(module, str(directory / WEIGHTS_FILE))
    except (ModuleViewError, MaskError, RuntimeError, FileNotFoundError, SafetensorError) as error:
        raise LoadError(f"{directory}: the weights do not fit the plan: {error}") from error
    _remember(module, plans)
    return module.eval()


# ------------------------------------------------------------------------------------------------ example inputs


def _store_example(example: tuple[tuple[Any, ...], dict[str, Any]], file: Path) -> dict[str, Any]:
    """Tensors go to the safetensors file, plain values into the returned JSON."""
    tensors: dict[str, torch.Tensor] = {}

    def plain(key: str, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            tensors[key] = value.contiguous()
            return {"tensor": key}
        if value is None or isinstance(value, bool | int | float | str):
            return {"value": value}
        raise TypeError(f"example input {key} is a {type(value).__name__}; only tensors and plain values can be saved")

    args, kwargs = example
    described = {
        "args": [plain(f"args.{i}", a) for i, a in enumerate(args)],
        "kwargs": {name: plain(f"kwargs.{name}", value) for name, value in kwargs.items()},
    }
    save_file(tensors, str(file))
    return described


def _read_example(described: dict[str, Any], file: Path) -> tuple[tuple[Any, ...], dict[str, Any]]:
    tensors = load_file(str(file))

    def value(entry: dict[str, Any]) -> Any:
        return tensors[entry["tensor"]] if "tensor" in entry else entry["value"]

    return tuple(value(a) for a in described["args"]), {k: value(v) for k, v in described["kwargs"].items()}
