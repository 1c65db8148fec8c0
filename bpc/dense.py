"""`DenseModel`: the small model in two views, one for compilers and one for the ecosystem."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from bpc.directory import (
    Example,
    LoadError,
    history_of,
    is_dense_directory,
    read_certificate,
    read_directory,
    remember,
    write_directory,
)
from passes.certificate import Certificate
from passes.driver import ShrinkResult
from passes.frontend.trace import trace
from passes.ir.info import trace_info
from passes.ir.manager import PassManager
from passes.plan.data import PlanData
from passes.report import ShrinkReport
from passes.rewrite.replace_constants import ReplaceConstants

if TYPE_CHECKING:
    from bpc.emit.onnx import Dtype
    from bpc.emit.recipe import Target

__all__ = ["DenseModel", "LoadError", "is_dense_directory", "load"]


class DenseModel:
    """A smaller dense model: ``graph_module`` for compilers, ``module`` for the ecosystem.

    ``report`` says what was removed, what stayed and why, and how far the small model is from the masked one (None
    after loading). ``plan`` is the same as data.
    """

    def __init__(
        self,
        plan: PlanData,
        *,
        module: Callable[[], nn.Module],
        example_inputs: Example,
        graph_module: fx.GraphModule | None = None,
        report: ShrinkReport | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        self.plan = plan
        self.report = report
        self.module_granularity = "dims"
        self.example_inputs = example_inputs
        self._certificate = certificate
        self._make_module = module
        self._graph = graph_module
        self._module: nn.Module | None = None
        self._traced: tuple[Any, ...] | None = None  # the module's state that the graph shows
        self._built: tuple[Any, ...] | None = None  # its state when it was made

    @staticmethod
    def from_shrink(result: ShrinkResult, masked_model: nn.Module) -> DenseModel:
        """From `passes.shrink` and the model it was made from, masks applied to its weights.

        The module view is built, and checked against the graph view on the example inputs, when it is first asked for.
        """
        graph = result.graph_module
        info = trace_info(graph)

        def build() -> nn.Module:
            view = result.plan.view(masked_model, masks={})  # applied already
            dense.module_granularity, dense.plan = view.granularity, view.plan
            remember(view.module, (*history_of(masked_model), view.plan))
            return view.module

        dense = DenseModel(
            result.plan,
            module=build,
            example_inputs=(info.args, info.kwargs),
            graph_module=graph,
            report=result.report,
            certificate=result.certificate,
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
        `passes.plan.errors.ModuleViewError` where the model's forward cannot follow; the graph view can.
        """
        if self._module is None:
            self._module = self._make_module()
            self._traced = self._built = _state(self._module)
        return self._module

    @property
    def certificate(self) -> Certificate | None:
        """What `passes.shrink` says of this model, for `bpc verify`; None once its module was trained or cast."""
        changed = self._module is not None and _state(self._module) != self._built
        return None if changed else self._certificate

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
        """Write a directory that `load` reads: config.json, model.safetensors, bpc.json, certificate.json.

        An interrupted save leaves what was there. Raises NotADirectoryError where ``path`` is a file, `ModuleViewError`
        for a model without a module view, and TypeError for one without a transformers config (save its graph:
        ``torch.export.save``).
        """
        module, certificate = self.module, self.certificate
        if certificate is not None and certificate.view == "graph":
            plan, tensors = json.loads(self.plan.to_json()), module.state_dict().items()
            certificate = certificate.of_module(plan, self.module_granularity, tensors)
        write_directory(path, module, self.example_inputs, certificate)


def _state(module: nn.Module) -> tuple[Any, ...]:
    """Changes when a weight does: every write in place counts up a tensor's version."""
    tensors = (*module.parameters(), *module.buffers())
    # Tensors made under torch.inference_mode keep no count; they are not trained either.
    return tuple((t.data_ptr(), 0 if t.is_inference() else t._version, t.dtype, t.device) for t in tensors)


def _graph_of(module: nn.Module, example: Example) -> fx.GraphModule:
    """The graph of a small module on the CPU, its dead sublayers replaced by their constants."""
    if any(parameter.device.type != "cpu" for parameter in module.parameters()):
        module = copy.deepcopy(module).cpu()
    args, kwargs = example
    return PassManager((ReplaceConstants(),)).run(trace(module, kwargs or args)).graph_module


def load(path: str | Path) -> DenseModel:
    """Load what `DenseModel.save_pretrained` wrote. Raises `LoadError`, naming the file, for anything else."""
    module, plan, example = read_directory(path)
    return DenseModel(plan, module=lambda: module, example_inputs=example, certificate=read_certificate(path))
