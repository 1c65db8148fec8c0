"""What failed, at which line of the model, and what to do about it."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch.export import Dim

import passes
from passes.frontend.explain import described, explained, export_error, first_line, source_line
from passes.ir.info import TraceError

HERE = Path(__file__)
OURS = Path(passes.__file__).parent / "frontend" / "trace.py"


def frame(path: Path | str, line: int, function: str, text: str) -> str:
    return f'  File "{path}", line {line}, in {function}\n    {text}\n'


def node(stack: str | None) -> fx.Node:
    found = fx.Graph().call_function(torch.relu)
    found.meta["stack_trace"] = stack
    return found


def test_the_line_of_a_node_is_the_innermost_outside_torch_and_this_package() -> None:
    stack = (
        frame("/home/me/train.py", 3, "main", "model(x)")
        + frame("/home/me/model.py", 41, "forward", "return self.body(x)")
        + frame("/env/torch/nn/modules/linear.py", 7, "forward", "return F.linear(x)")
        + frame(OURS, 9, "trace", "export(model)")
    )
    found = node(stack)
    assert source_line(found) == "/home/me/model.py:41 in forward: return self.body(x)"
    assert described(found) == f"relu ({torch.relu}), /home/me/model.py:41 in forward: return self.body(x)"


@pytest.mark.parametrize("stack", [None, "", frame("/env/torch/nn/modules/linear.py", 7, "forward", "F.linear(x)")])
def test_a_node_without_a_line_of_the_model_has_none(stack: str | None) -> None:
    assert source_line(node(stack)) == ""
    assert described(node(stack)) == f"relu ({torch.relu})"


def test_the_first_line_of_an_error_has_its_type() -> None:
    assert first_line(ValueError("\n too small\nand more")) == "ValueError: too small"
    assert first_line(ValueError(" \n")) == first_line(ValueError()) == "ValueError"


def test_whatever_is_raised_says_what_was_done_and_to_which_node() -> None:
    found = node(frame("/home/me/model.py", 41, "forward", "return x"))
    with pytest.raises(TraceError) as caught, explained("step fold", found):
        raise KeyError("a\nb")
    assert str(caught.value) == (
        "the traced graph cannot be prepared: step fold: KeyError: 'a\\nb'\n"
        f"  at relu ({torch.relu}), /home/me/model.py:41 in forward: return x"
    )
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(TraceError) as caught, explained("step fold"):
        raise ValueError("too small")
    assert str(caught.value) == "the traced graph cannot be prepared: step fold: ValueError: too small"


def test_what_explains_itself_is_left_alone() -> None:
    error = TraceError("known")
    with pytest.raises(TraceError) as caught, explained("step fold"):
        raise error
    assert caught.value is error
    with pytest.raises(KeyboardInterrupt), explained("step fold"):
        raise KeyboardInterrupt


def line_of(error: BaseException, function: str) -> str:
    """Where this file's ``function`` was when ``error`` went through it."""
    (found,) = [f for f in traceback.extract_tb(error.__traceback__) if f.name == function and f.filename == __file__]
    return f"{HERE}:{found.lineno} in {function}: {found.line}"


class Picky(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor, *, mask: torch.Tensor, scale: float) -> torch.Tensor:
        return self.linear(x) * mask * scale


def test_inputs_that_the_model_refuses_are_named_with_its_own_error() -> None:
    """The line is the model's, not torch's where the error was raised."""
    args, kwargs = (torch.zeros(2, 4),), {"mask": torch.ones(2, 1, dtype=torch.bool), "scale": 2.0}
    with pytest.raises(RuntimeError) as caught:
        Picky()(*args, **kwargs)
    found = export_error(Picky(), KeyError("from torch.export"), args, kwargs, caught.value)
    assert str(found) == (
        f"Picky cannot be traced: it does not run on the example inputs: {first_line(caught.value)}\n"
        f"  at {line_of(caught.value, 'forward')}\n"
        "  Given: [0][0] (2, 4) float32, [1]['mask'] (2, 1) bool. Pass example_inputs that the model itself accepts."
    )


class Loses(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return lose(x)


def lose(x: torch.Tensor) -> torch.Tensor:
    try:
        raise IndexError("from the model")
    except IndexError as error:
        raise ValueError("from torch") from error


def test_the_line_is_found_through_causes_and_contexts() -> None:
    """An error that torch raises for one of the model's has no line of the model itself."""
    inner = ValueError("in the model")
    try:
        raise inner
    except ValueError:
        where = line_of(inner, "test_the_line_is_found_through_causes_and_contexts")
    caused, in_context, endless = KeyError("caused"), KeyError("in context"), KeyError("endless")
    caused.__cause__ = inner
    in_context.__context__ = inner
    for outer in (caused, in_context):
        found = str(export_error(Loses(), outer, (), {}, None))
        assert found.startswith(f"Loses cannot be traced: {first_line(outer)}\n  at {where}\n  The model runs on")
    endless.__context__ = KeyError("other")
    endless.__context__.__context__ = endless
    assert "at a place in torch (no line" in str(export_error(Loses(), endless, (), {}, None))


def test_of_an_error_and_its_cause_the_line_last_reached_counts() -> None:
    with pytest.raises(ValueError, match="from torch") as caught:
        Loses()(torch.zeros(1))
    found = str(export_error(Loses(), caught.value, (), {}, None))
    assert 'lose: raise ValueError("from torch") from error\n' in found


class Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class Even(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.zeros(4, 3)


def failure(model: nn.Module, shapes: Any = None) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        torch.export.export(model, (torch.zeros(4, 3),), dynamic_shapes=shapes, strict=False)
    return caught.value


def advice(model: nn.Module, error: Exception) -> str:
    return str(export_error(model, error, (), {}, None)).splitlines()[-1].strip()


def test_each_kind_of_failure_has_its_advice() -> None:
    sizes, data = failure(Even(), {"x": {0: Dim.DYNAMIC}}), failure(Branch())
    assert "dynamic=False traces the example's only" in advice(Even(), sizes)
    assert advice(Branch(), data).startswith("Data-dependent Python control flow")
    assert advice(Branch(), RuntimeError("Data-dependent something")).startswith("Data-dependent Python control flow")
    assert advice(Even(), RuntimeError("other")).startswith("The model runs on the example, but torch.export cannot")
    unknown = RuntimeError("Unsupported input type <class 'Cache'>. Export only supports pytree containers")
    assert "register_cache_pytrees_for_model(model) first" in advice(Even(), unknown)
    for known in (sizes, data):  # what torch wraps in errors of its own
        outer = RuntimeError("other")
        outer.__cause__ = known
        assert advice(Even(), outer) == advice(Even(), known)


def test_the_line_of_a_failed_export_is_the_models() -> None:
    found = str(export_error(Branch(), failure(Branch()), (), {}, None))
    assert re.search(rf"\n  at {re.escape(str(HERE))}:\d+ in forward: return x if x.sum\(\) > 0 else -x\n", found)
