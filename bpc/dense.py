"""`DenseModel`: the small model in two views, one for compilers and one for the ecosystem."""

from __future__ import annotations

import contextlib
import inspect
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from bpc.directory import (
    Example,
    GraphCuts,
    LoadError,
    Saved,
    is_dense_directory,
    read_directory,
    write_directory,
)
from bpc.hub.note import note_of
from bpc.hub.repository import upload
from bpc.hub.sizes import note_sizes, tensors_of
from bpc.notebook import cuts, line
from bpc.small_graph import on_cpu, part_graph, small_graph
from passes.certificate import Certificate
from passes.driver import ShrinkResult
from passes.ir.info import trace_info
from passes.plan.data import Cut
from passes.plan.errors import ModuleViewError
from passes.plan.plan import ModuleView, Plan
from passes.report import ShrinkReport

if TYPE_CHECKING:
    from bpc.emit.onnx import Dtype
    from bpc.emit.recipe import Target

__all__ = ["DenseModel", "LoadError", "is_dense_directory", "load"]


class DenseModel:
    """A smaller dense model: ``graph_module`` for compilers, ``module`` for the ecosystem.

    ``report`` says what was removed of the graph, what stayed and why, and how far the small graph is from the masked
    one (None after loading). ``plan`` is the same as data; `module_plan` is the module's, which may cut less.
    ``one_shot`` says what `bpc.prune_once` chose, where that made it.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        view: Callable[[], ModuleView],
        example_inputs: Example,
        graph_module: fx.GraphModule | None = None,
        cuts: GraphCuts | None = None,
        report: ShrinkReport | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        self.plan = plan
        self.report = report
        self.example_inputs = example_inputs
        self.one_shot: Any = None  # a report that `bpc.oneshot` sets, which builds on this module
        self._certificate = certificate
        self._make_view = view
        self._cuts = cuts
        self._graph = graph_module
        self._view: ModuleView | None = None
        self._traced: tuple[Any, ...] | None = None  # the module's state that the graph shows
        self._built: tuple[Any, ...] | None = None  # its state when it was made

    @staticmethod
    def from_shrink(result: ShrinkResult, masked_model: nn.Module) -> DenseModel:
        """From `passes.shrink` and the model it was made from, masks applied to its weights.

        The module view is built, and checked against the graph view on the example inputs, when it is first asked for.
        What nothing cuts is the masked model's own: give a copy where that is to stay as it is, as a teacher is.
        """
        info, options = trace_info(result.graph_module), result.certificate.options

        def build() -> ModuleView:
            view = result.plan.view(masked_model, masks={})  # applied already
            note_sizes(view.module, view.plan.cuts, note_of(getattr(masked_model, "config", None)))
            return view

        return DenseModel(
            result.plan,
            view=build,
            example_inputs=(info.args, info.kwargs),
            graph_module=result.graph_module,
            cuts=GraphCuts(result.plan, result.report.parameters_after, options["granularity"], options["multiple"]),
            report=result.report,
            certificate=result.certificate,
        )

    @property
    def graph_module(self) -> fx.GraphModule:
        """The small graph: feeds ONNX, torch.compile and ``.pt2``. Sublayers that died are gone from it.

        Made anew where ``module`` has been trained, cast or loaded into since: a graph has constants computed from
        weights, so that sharing parameters would not do.
        """
        if self._graph is None or (self._view is not None and _state(self.module) != self._traced):
            self._graph = small_graph(self.module, self.example_inputs, self._cuts)
            self._traced = _state(self.module)
        return self._graph

    @property
    def module(self) -> nn.Module:
        """The user's model with smaller layers. A sublayer that died keeps one zero head or dim.

        Where the forward has one head size for all of a layer, or one head count for all layers, the module keeps more
        than the graph (`module_granularity` says: "dims", "even", "heads" or "units"). Raises
        `passes.plan.errors.ModuleViewError` where the model's forward cannot follow; the graph view can.
        """
        return self._module_view().module

    @property
    def module_plan(self) -> Plan:
        """What `module` follows: `plan` where its forward can, else a coarser one; its head counts are written down."""
        return self._module_view().plan

    @property
    def module_granularity(self) -> str:
        """How finely attention is cut in `module`: "dims", "even", "heads" or "units"."""
        return self._module_view().granularity

    def describe_module(self) -> str:
        """One line on the module view: how many parameters it holds, and why more than the graph where it does."""
        return str(self._module_view())

    def _module_view(self) -> ModuleView:
        if self._view is None:
            self._view = self._make_view()
            self._traced = self._built = _state(self._view.module)
        return self._view

    @property
    def certificate(self) -> Certificate | None:
        """What `passes.shrink` says of this model, for `bpc verify`; None once its module was trained or cast."""
        changed = self._view is not None and _state(self._view.module) != self._built
        return None if changed else self._certificate

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the graph view, without gradients; the module, in eval mode, for what only its forward takes.

        Those are inputs that the example lacked, such as a tokenizer's token_type_ids or labels, and a module that was
        moved to another device: the graph stays on the CPU. Raises TypeError for inputs that neither takes.
        """
        if self._view is not None and any(p.device.type != "cpu" for p in self._view.module.parameters()):
            return self._run_module(args, kwargs)
        graph = self.graph_module
        signature = inspect.signature(graph.forward)
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            if self._module_takes(args, kwargs):
                return self._run_module(args, kwargs)
            raise TypeError(
                f"{error}: the graph takes {', '.join(signature.parameters)}, as in the example it was traced with, "
                "and the module does not take these either"
            ) from None
        with torch.no_grad():
            return graph(*args, **kwargs)

    def _module_takes(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        try:
            signature = inspect.signature(self.module.forward)
            signature.bind(*args, **kwargs)
        except (TypeError, ModuleViewError):
            return False
        # Catch-alls (**kwargs) would swallow a misspelt name.
        return all(name in signature.parameters for name in kwargs)

    def _run_module(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        was_training = self.module.training
        self.module.eval()
        try:
            with torch.no_grad():
                return self.module(*args, **kwargs)
        finally:
            self.module.train(was_training)

    def resized(self, module: nn.Module, dims: Mapping[str, int], example: Example) -> DenseModel:
        """The same cuts around another ``module``, whose tensors named in ``dims`` have another size in that dim.

        No cut may be along these dims. ``example``: inputs to trace the module with. Nothing vouches for the new
        weights: there is no certificate.
        """
        view, old, new = self._module_view(), tensors_of(self.module), tensors_of(module)
        gone = {id(old[name]): old[name].numel() - new[name].numel() for name in dims}

        def adapted(plan: Plan) -> Plan:
            sizes = {name: (dim, new[name].shape[dim]) for name, dim in dims.items()}
            return replace(
                plan, cuts=tuple(_with_size(cut, sizes.get(cut.parameter)) for cut in plan.cuts), origin=None
            )

        cuts = self._cuts
        if cuts is not None:
            cuts = replace(cuts, plan=adapted(cuts.plan), parameters=cuts.parameters - sum(gone.values()))
        moved = replace(view, module=module, plan=adapted(view.plan))
        return DenseModel(adapted(self.plan), view=lambda: moved, example_inputs=example, cuts=cuts)

    @property
    def config(self) -> Any:
        """The module's transformers config, with the note of its sizes. Raises AttributeError where it has none."""
        return self.module.config

    if not TYPE_CHECKING:  # a misspelt name is to stay an error

        def __getattr__(self, name: str) -> Any:
            """Whatever else a model of transformers has is the module's: ``generate``, ``device``, ``can_generate``."""
            if name.startswith("_"):
                raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
            try:
                return getattr(self.module, name)
            except ModuleViewError as error:
                raise AttributeError(f"{name!r} would be the module's, and there is none: {error}") from error

    def to(self, *args: Any, **kwargs: Any) -> DenseModel:
        """Move or cast ``module``, as `torch.nn.Module.to`; the graph follows in dtype and stays on the CPU."""
        self.module.to(*args, **kwargs)
        return self

    def half(self) -> DenseModel:
        """Cast ``module`` to float16, and the graph with it."""
        return self.to(torch.float16)

    def eval(self) -> DenseModel:
        """Put ``module`` in eval mode, which the graph always is in."""
        with contextlib.suppress(ModuleViewError):
            self.module.eval()
        return self

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: the module itself in the place of what would make it; graphs of it are made anew."""
        certificate = self.certificate
        try:
            view, refusal = self._module_view(), None
        except ModuleViewError as error:
            view, refusal = None, str(error)
        return {
            "plan": self.plan,
            "report": self.report,
            "example_inputs": self.example_inputs,
            "cuts": self._cuts,
            "certificate": certificate,
            "view": view,
            "refusal": refusal,
            "graph": self._graph if view is None else None,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        view: ModuleView | None = state["view"]

        def make_view() -> ModuleView:
            if view is None:
                raise ModuleViewError(state["refusal"])
            return view

        DenseModel.__init__(
            self,
            state["plan"],
            view=make_view,
            example_inputs=state["example_inputs"],
            graph_module=state["graph"],
            cuts=state["cuts"],
            report=state["report"],
            certificate=state["certificate"],
        )

    def __repr__(self) -> str:
        return f"DenseModel({self.report.short() if self.report else f'{len(self.plan.cuts):,} tensors cut'})"

    def _repr_html_(self) -> str:
        return (line(repr(self)) if self.report is None else self.report._repr_html_()) + cuts(self.plan)

    def export_onnx(
        self,
        path: str | Path,
        target: Target = "cpu",
        dtype: Dtype = "float32",
        *,
        generation: bool = False,
        **options: Any,
    ) -> Any:
        """Write an ONNX file; see `bpc.export_onnx`. ``generation``: files that take and give back keys and values of
        earlier tokens, into the directory ``path``; see `bpc.emit.export_generation`.
        """
        from bpc.emit import export_generation, export_onnx

        if not generation:
            return export_onnx(self, path, target=target, dtype=dtype, **options)
        view = self._module_view()
        return export_generation(
            on_cpu(view.module),
            path,
            simplify=lambda g: part_graph(g, view, self._cuts),
            target=target,
            dtype=dtype,
            **options,
        )

    def save_pretrained(
        self,
        path: str | Path,
        *,
        max_shard_size: int | str | None = None,
        standalone: bool = False,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        private: bool | None = None,
        token: str | None = None,
    ) -> None:
        """Write a directory that `load` and, with bpc imported, transformers' ``from_pretrained`` read.

        It holds config.json, model.safetensors (or files of at most ``max_shard_size``), bpc.json, certificate.json and
        a model card, README.md, unless one is there that bpc did not write. ``standalone`` adds modeling_bpc.py, which
        loads the model without bpc: ``AutoModelForX.from_pretrained(path, trust_remote_code=True)``.
        ``push_to_hub`` uploads it, with a tokenizer, processor and card beside it, to the repository ``repo_id``, by
        default the directory's name; ``private`` and ``token`` are huggingface_hub's, and so are errors of the upload.

        An interrupted save leaves what was there. Raises NotADirectoryError where ``path`` is a file, `ModuleViewError`
        for a model without a module view, `NoteError` for a class that ``standalone`` cannot name, ValueError for
        adapters of peft (merge them), and TypeError without a transformers config (save the graph: torch.export.save).
        """
        view, certificate = self._module_view(), self.certificate
        if certificate is not None and certificate.view == "graph":
            plan, tensors = view.plan.plain(), view.module.state_dict().items()
            certificate = certificate.of_module(plan, view.granularity, tensors)
        options: dict[str, Any] = {} if max_shard_size is None else {"max_shard_size": max_shard_size}
        options |= {"without_bpc": standalone, "chosen": self.one_shot}
        write_directory(path, Saved(view, self._cuts, self.example_inputs, certificate), **options)
        if push_to_hub:
            upload(Path(path), repo_id or Path(path).resolve().name, private=private, token=token)

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, token: str | None = None, **options: Any
    ) -> None:
        """Upload what `save_pretrained` writes; its ``options`` are taken too. `load` reads it by ``repo_id``."""
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "model"
            self.save_pretrained(target, push_to_hub=True, repo_id=repo_id, private=private, token=token, **options)


def _with_size(cut: Cut, size: tuple[int, int] | None) -> Cut:
    """A cut of a tensor that has another size in one dim: (dim, size)."""
    if size is None:
        return cut
    return replace(cut, shape=(*cut.shape[: size[0]], size[1], *cut.shape[size[0] + 1 :]))


def _state(module: nn.Module) -> tuple[Any, ...]:
    """Changes when a weight does: every write in place counts up a tensor's version."""
    tensors = (*module.parameters(), *module.buffers())
    # Tensors made under torch.inference_mode keep no count; they are not trained either.
    return tuple((t.data_ptr(), 0 if t.is_inference() else t._version, t.dtype, t.device) for t in tensors)


def load(
    path: str | Path,
    *,
    model_class: Any = None,
    dtype: Any = None,
    device_map: Any = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    check_hashes: bool = True,
) -> DenseModel:
    """Load what `DenseModel.save_pretrained` wrote. Raises `LoadError`, naming the file, for anything else.

    ``path``: a directory, or the id of a hub repository ("owner/name"), of which ``revision`` says the branch, tag or
    commit.
    ``model_class``: the module's class where it is the user's own and not imported yet. ``dtype``, ``device_map``: as
    for transformers' ``from_pretrained``; by default every weight keeps the dtype it was saved in, on the CPU.
    ``trust_remote_code``: run Python code that the directory brings along (``auto_map`` in config.json).
    ``check_hashes``: False where another program has written the weights since, and they are meant.
    """
    saved = read_directory(
        path,
        revision=revision,
        check_hashes=check_hashes,
        model_class=model_class,
        dtype=dtype,
        device_map=device_map,
        trust_remote_code=trust_remote_code,
    )
    return DenseModel(
        saved.view.plan if saved.graph is None else saved.graph.plan,
        view=lambda: saved.view,
        example_inputs=saved.example,
        cuts=saved.graph,
        certificate=saved.certificate if dtype is None else None,
    )
