"""The ``[sweep]`` table of a recipe: which options of `bpc prune`, and which keys of its spec, take which values."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from bpc.cli.choices import spec_of
from bpc.cli.recipes import option_names
from bpc.spec import SpecError, change_spec
from bpc.terminal.errors import CommandError
from passes.strict import as_schema, short

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

# Trials that differ in these could not be compared, or would not be trials.
FIXED = frozenset(
    {"model", "data", "evaluate", "out", "task", "columns", "text", "pair", "label", "time_it", "family"}
    | {"resume", "force", "dry_run", "keep_checkpoints", "log_json", "trust_remote_code", "recipe"}
)
SPEC = "spec"


class Range(BaseModel):
    """Numbers from ``low`` to ``high``, evenly or by their logarithm, all or every ``step``-th."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _holds_something(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low = {self.low} is not below high = {self.high}: the range is empty")
        if self.log and self.low <= 0:
            raise ValueError(f"log = true needs low above 0, not {self.low}")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other: leave one out")
        if self.step is not None and self.step > self.high - self.low:
            raise ValueError(f"step = {self.step} leads beyond high = {self.high}")
        return self

    @property
    def last(self) -> float:
        """The largest value: the last step, where there are steps."""
        if self.step is None:
            return self.high
        return self.low + self.step * math.floor((self.high - self.low) / self.step * (1 + 1e-9))


class _Head(BaseModel):
    model_config = ConfigDict(extra="forbid")

    trials: int | None = Field(default=None, ge=1)
    sampler: Literal["tpe", "random"] = "tpe"


@dataclass(frozen=True)
class Axis:
    """One thing that is varied: ``path`` is (parameter of the command,) or ("spec", key, key …)."""

    name: str
    path: tuple[str, ...]
    values: tuple[Any, ...] | Range
    whole: bool = False  # of a range: numbers without fractions

    def choose(self, trial: BaseTrial) -> Any:
        """The trial's value; a trial that was asked before says the same again."""
        if not isinstance(self.values, Range):
            return self.value(trial.suggest_categorical(self.name, [label(value) for value in self.values]))
        r = self.values
        if self.whole:
            return trial.suggest_int(self.name, int(r.low), int(r.last), step=int(r.step or 1), log=r.log)
        return trial.suggest_float(self.name, r.low, r.last, step=r.step, log=r.log)

    def value(self, labelled: Any) -> Any:
        """What a label stands for."""
        assert not isinstance(self.values, Range)
        return next(v for v in self.values if label(v) == labelled)

    def all(self) -> list[Any] | None:
        """Labels of all values; None of a range without end."""
        if not isinstance(self.values, Range):
            return [label(value) for value in self.values]
        step = self.values.step or (1 if self.whole and not self.values.log else None)
        if step is None:
            return None
        count = round((self.values.last - self.values.low) / step) + 1
        return [self.values.low + step * i for i in range(count)]


@dataclass(frozen=True)
class Space:
    """All axes. ``trials``: how many combinations are tried; None: all there are, in their order."""

    axes: tuple[Axis, ...]
    trials: int | None
    sampler: str

    def choose(self, trial: BaseTrial) -> dict[str, Any]:
        """{axis: value} of a trial."""
        return {axis.name: axis.choose(trial) for axis in self.axes}

    def grid(self) -> list[dict[str, Any]]:
        """{axis: label} of every combination, the last axis fastest."""
        sides = [axis.all() or [] for axis in self.axes]
        return [dict(zip([a.name for a in self.axes], point, strict=True)) for point in itertools.product(*sides)]

    def example(self) -> dict[str, Any]:
        """{axis: its first value}."""
        return {a.name: a.values.low if isinstance(a.values, Range) else a.values[0] for a in self.axes}

    def describe(self) -> dict[str, Any]:
        """What is varied, and how it is chosen, as JSON; not how often."""
        return {
            **{a.name: a.values.model_dump() if isinstance(a.values, Range) else a.all() for a in self.axes},
            "sampler": "all combinations" if self.trials is None else self.sampler,
        }

    @property
    def count(self) -> int:
        """How many trials there will be."""
        return len(self.grid()) if self.trials is None else self.trials

    def options(self, given: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
        """The command's parameters with a trial's values. Raises `SpecError` where its spec is none."""
        changed, spec = dict(given), {}
        for axis in self.axes:
            value = chosen[axis.name]
            if len(axis.path) > 1:
                spec[axis.path[1:]] = value
            else:
                changed[axis.path[0]] = json.dumps(value) if isinstance(value, dict) else value
        if spec:
            changed[SPEC] = change_spec(spec_of(changed[SPEC]), spec).model_dump_json()
        return changed


def label(value: Any) -> Any:
    """A value as Optuna keeps it: a number or a text."""
    if isinstance(value, Path):
        return str(value)
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


def read_space(context: typer.Context, table: Mapping[str, Any], file: Path) -> Space:
    """The space that ``table`` describes, for the command of ``context``, whose parameters are the other values.

    Raises `CommandError` for an option that does not exist or cannot be varied, for values that it does not take, and
    for a range that is empty, all with the file and the key.
    """
    reader = _Reader(context, file)
    head = {key: value for key, value in table.items() if key in _Head.model_fields}
    try:
        chosen = as_schema(TypeAdapter(_Head), head)
    except ValueError as error:
        raise CommandError(f"{file}: sweep.{error}") from None
    axes = tuple(axis for key, value in table.items() if key not in head for axis in reader.axes(key, value))
    if not axes:
        raise CommandError(f'{file}: [sweep] varies nothing; give it an option of bpc prune, "target_speedup = [2, 3]"')
    twice = [axis.name for axis in axes if [a.path for a in axes].count(axis.path) > 1]
    if twice:
        raise CommandError(f"{file}: sweep.{twice[0]} is given twice")
    endless = [axis.name for axis in axes if axis.all() is None]
    if chosen.trials is None and endless:
        raise CommandError(
            f"{file}: sweep.trials is missing: without it all combinations are tried, and {endless[0]} has no end. "
            "Give trials = N, or a list or a step"
        )
    if chosen.trials is None and "sampler" in head:
        raise CommandError(f"{file}: sweep.sampler chooses among values; give sweep.trials too, or leave it out")
    return Space(axes, chosen.trials, chosen.sampler)


class _Reader:
    """Reads one key of the table after the other."""

    def __init__(self, context: typer.Context, file: Path) -> None:
        self.context, self.file = context, file
        self.names = option_names(context)
        self.parameters = {parameter.name: parameter for parameter in context.command.params}
        self.base: str = context.params[SPEC]

    def axes(self, key: str, value: Any) -> Iterator[Axis]:
        """One axis; several of a table of keys of the spec."""
        first, *rest = key.split(".")
        option = first.replace("_", "-")
        if option not in self.names:
            known = sorted(o.replace("-", "_") for o, parameter in self.names.items() if parameter not in FIXED)
            raise self._error(key, f"is no option of bpc prune; it has {', '.join(known)}")
        parameter = self.names[option]
        if parameter in FIXED:
            raise self._error(key, "cannot be varied: trials have to have it in common to be compared")
        source = self.context.get_parameter_source(parameter)
        changed = parameter == SPEC and (rest or isinstance(value, dict))
        if source is not None and source.name == "COMMANDLINE" and not changed:
            raise self._error(key, f"is given as --{option} too: take it off the command line, or out of [sweep]")
        if parameter == SPEC:
            yield from self._spec((SPEC, *rest), value)
        elif rest:
            raise self._error(key, f"{first} has no keys of its own; only spec has")
        else:
            yield self._axis(parameter, (parameter,), value, lambda v: self._option(parameter, v))

    def _spec(self, path: tuple[str, ...], value: Any) -> Iterator[Axis]:
        if isinstance(value, dict) and not {"low", "high"} & value.keys():
            if not value:
                raise self._error(".".join(path), "is an empty table; give keys of the spec")
            for key, inner in value.items():
                yield from self._spec((*path, *key.split(".")), inner)
        else:
            check = self._whole_spec if len(path) == 1 else lambda v: self._key(path[1:], v)
            yield self._axis(".".join(path), path, value, check)

    def _axis(self, name: str, path: tuple[str, ...], given: Any, check: Callable[[Any], Any]) -> Axis:
        if isinstance(given, list):
            return Axis(name, path, self._values(name, given, check))
        if not isinstance(given, dict):
            raise self._error(name, f"give a list of values, or {{low = …, high = …}} (got {short(given)})")
        try:
            found = Range.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join([name, *map(str, first["loc"][:1])])
            raise self._error(place, str(first["msg"]).removeprefix("Value error, ")) from None
        for end in (found.low, found.last):
            self._checked(name, end, check)
        return Axis(name, path, found, whole=self._is_whole(name, found, check))

    def _values(self, name: str, given: list[Any], check: Callable[[Any], Any]) -> tuple[Any, ...]:
        if not given:
            raise self._error(name, "is an empty list; give values to try")
        values = tuple(self._checked(name, value, check) for value in given)
        labels = [label(value) for value in values]
        if twice := [one for one in labels if labels.count(one) > 1]:
            raise self._error(name, f"{twice[0]!r} is given twice")
        return values

    def _is_whole(self, name: str, found: Range, check: Callable[[Any], Any]) -> bool:
        numbers = [n for n in (found.low, found.high, found.step) if n is not None]
        between = found.low + (found.high - found.low) / math.pi
        try:
            takes_fractions = check(between) == between
        except ValueError:
            takes_fractions = False
        if not takes_fractions and not all(float(n).is_integer() for n in numbers):
            raise self._error(name, "takes whole numbers; give them as low, high and step")
        return not takes_fractions

    def _checked(self, name: str, value: Any, check: Callable[[Any], Any]) -> Any:
        try:
            return check(value)
        except ValueError as error:
            raise self._error(name, f"{short(value)}: {error}") from None

    def _option(self, parameter: str, value: Any) -> Any:
        if isinstance(value, dict | list):
            raise ValueError("give plain values")
        try:
            return self.parameters[parameter].process_value(self.context, value)
        except typer.BadParameter as error:
            raise ValueError(error.message) from None

    def _whole_spec(self, value: Any) -> Any:
        try:
            spec_of(json.dumps(value) if isinstance(value, dict) else value)
        except SpecError as error:
            raise ValueError(str(error)) from None
        return value

    def _key(self, path: tuple[str, ...], value: Any) -> Any:
        """Refuses a key that does not exist and a value it never takes; not one that other keys may yet suit."""
        try:
            change_spec(spec_of(self.base), {path: value})
        except SpecError as error:
            cause = error.__cause__
            problems = cause.errors() if isinstance(cause, ValidationError) else [{"type": "", "loc": ()}]
            if any(p["type"] != "value_error" or tuple(map(str, p["loc"]))[: len(path)] == path for p in problems):
                raise ValueError(str(error)) from None
        return value

    def _error(self, key: str, what: str) -> CommandError:
        return CommandError(f"{self.file}: sweep.{key}: {what}")
