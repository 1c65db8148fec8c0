"""`verify`: a saved small model held against its certificate and, where there is one, the masked model.

The checker has no part in making what it checks: it reads the certificate as data, carries the plan out by itself
(`bpc.verify.plan`), and runs the two models as they are. It knows no graph, operator or rule.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bpc.dense import load
from bpc.directory import CERTIFICATE_FILE, PLAN_FILE, WEIGHTS_FILE
from bpc.verify.plan import Difference, Plan
from bpc.verify.runs import Inputs, Unusable, Watch, distance, floors, inputs_like, outputs_of
from passes.certificate import Certificate, digests

# How many times what rounding costs the masked model the small one may be away from it: other kernels and other orders
# of summation lose as much again, and the largest of few numbers varies.
MULTIPLE = 16.0
# A folded bias is rounded once, and the constants in it before. A constant may have come through several functions.
_BIAS_ROUNDINGS, _CONSTANT_ROUNDINGS = 4.0, 64.0


@dataclass(frozen=True)
class Verdict:
    """(outcome, what was looked at), in order: "agrees", "not checked", or "differs", which ends the work."""

    findings: tuple[tuple[str, str], ...]

    @property
    def agrees(self) -> bool:
        return all(outcome != "differs" for outcome, _ in self.findings)

    def __str__(self) -> str:
        return "\n".join(map(": ".join, self.findings))


def verify(directory: str | Path, masked: nn.Module | None = None, *, reweightings: int = 3, seed: int = 0) -> Verdict:
    """Check what `DenseModel.save_pretrained` wrote against its certificate.

    ``masked``: the model it was made from, masks applied to its weights; without it only the directory itself is
    checked, and the verdict says so. ``reweightings``: how often to do so again with other numbers in every weight that
    is not zero, which tells a plan that follows from the zeros from one that agrees by accident. ``masked`` and the
    directory are left as they are. Raises `Unusable`, and `bpc.dense.LoadError` for a directory that cannot be read.
    """
    dense = load(directory, check_hashes=False)  # the certificate has hashes of its own
    small = dense.module
    if (certificate := dense.certificate) is None:
        raise Unusable(f"{directory} has no {CERTIFICATE_FILE}: weights that changed after shrinking have none")
    findings: list[tuple[str, str]] = []

    def note(text: str, outcome: str = "agrees") -> None:
        findings.append((outcome, text))

    try:
        plan = Plan.read(certificate.plan)
        note(_check_plan_file(certificate, Path(directory)))
        note(_check_hashes(certificate.small, dict(small.state_dict()), WEIGHTS_FILE))
        if masked is None:
            note(_check_alone(small, Inputs("the example", *dense.example_inputs)))
            return Verdict((*findings, ("not checked", "that it computes what the masked model does: none was given")))
        if "width" in certificate.options:
            raise Unusable("made with a width mask, and MASKED has norms over all channels: check it without MASKED")
        masked = copy.deepcopy(masked).eval()
        named = tensors_of(masked)
        traced = {name: tensor for name, tensor in named.items() if name in certificate.masked}
        note(_check_hashes(certificate.masked, traced, "the masked model"))
        note(_check_weights(plan, named, tensors_of(small)))
        said = certificate.agreement or {}
        tried = [shape for shape in said.get("shapes", ()) if isinstance(shape, str)]
        inputs, refused = _usable(masked, inputs_like(dense.example_inputs, tried, bool(said.get("excluded")), seed))
        note(_check_runs(masked, small, inputs, eps := torch.finfo(getattr(torch, certificate.dtype)).eps))
        note(_check_reweightings(masked, small, inputs, plan, eps, reweightings, seed))
        findings += [("not checked", reason) for reason in refused]
    except Difference as error:
        note(str(error), "differs")
    return Verdict(tuple(findings))


def _check_plan_file(certificate: Certificate, directory: Path) -> str:
    plan = json.loads((directory / PLAN_FILE).read_bytes()).get("plans", [{}])[-1]
    if odd := sorted(k for k in {*plan, *certificate.plan} if plan.get(k) != certificate.plan.get(k)):
        raise Difference(f"{PLAN_FILE}: {_some(odd)} of its plan are not the certificate's")
    return f"the plan is the certificate's ({', '.join(f'{k} {v}' for k, v in certificate.versions.items())})"


def _check_hashes(expected: Mapping[str, str], tensors: Mapping[str, Tensor], what: str) -> str:
    actual = digests(tensors.items())
    if odd := sorted(expected.keys() ^ actual.keys()):
        raise Difference(f"{what}: {_some(odd)} is in it or in the certificate, not in both")
    if wrong := [name for name in expected if actual[name] != expected[name]]:
        raise Difference(f"{what}: {_some(wrong)} has other numbers than the certificate was made for")
    return f"{what}: {len(actual)} tensors have the certificate's hashes"


def _check_alone(module: nn.Module, inputs: Inputs) -> str:
    if bad := [name for name, weight in module.named_parameters() if not bool(torch.isfinite(weight).all())]:
        raise Difference(f"{WEIGHTS_FILE}: {_some(bad)} holds NaN or infinities")
    outputs_of(module, inputs, fault=Difference)
    return "every weight is finite, the model runs on its example, and what comes out is finite"


def _check_weights(plan: Plan, masked: Mapping[str, Tensor], small: Mapping[str, Tensor]) -> str:
    """Every small tensor is the masked one, cut: bit for bit, or to rounding where constants were folded in."""
    if missing := sorted({*masked, *(fold.weight for fold in plan.folds)} - small.keys()):
        raise Difference(f"the small model lacks {_some(missing)}")
    biases = gone = zero = 0
    for name, tensor in small.items():
        value, terms = plan.small(name, masked, [fold.constants for fold in plan.folds])
        if value.shape != tensor.shape:
            raise Difference(f"{name} is {tuple(tensor.shape)}; by the plan it has to be {tuple(value.shape)}")
        got = tensor.double() if tensor.is_floating_point() else tensor
        if not bool(terms.any()):
            if not torch.equal(value, got):
                kinds = f"{tensor.dtype}, from {masked.get(name, got).dtype}"
                raise Difference(f"{name} is not what the plan cuts from the masked model ({kinds})")
        elif not bool(((value - got).abs() <= _BIAS_ROUNDINGS * torch.finfo(tensor.dtype).eps * terms).all()):
            raise Difference(f"{name} is not the masked bias plus the constants that the plan folds into it")
        else:
            biases += 1
        if name in masked:
            without = masked[name][plan.gone(name, masked[name])]
            gone, zero = gone + without.numel(), zero + int((without == 0).sum())
    folded = sum(int(masked[f.weight].index_select(f.in_dim, f.columns).count_nonzero()) for f in plan.folds)
    return (
        f"{len(small) - biases} small tensors are the masked ones, cut, bit for bit; {biases} biases are what folding "
        f"makes of them. Of {gone:,} entries that went, {zero:,} were zero and {folded:,} are folded; of the other "
        f"{gone - zero - folded:,} only the runs can say that nothing reads them"
    )


def _usable(masked: nn.Module, inputs: Iterable[Inputs]) -> tuple[list[Inputs], list[str]]:
    """The inputs that the masked model takes and makes finite numbers of, in float64 too; and why not the others."""
    exact, taken, refused = copy.deepcopy(masked).double(), [], []
    for one in inputs:
        try:
            outputs_of(masked, one)
            outputs_of(exact, one, torch.float64)
            taken.append(one)
        except Unusable as error:
            refused.append(str(error))
    if not taken:
        raise Unusable("; ".join(refused))
    return taken, refused


def _check_runs(masked: nn.Module, small: nn.Module, inputs: Sequence[Inputs], eps: float) -> str:
    """The small model as it is saved, in its own precision. ``eps``: of the least precise dtype inside."""
    exact, rough, scale = copy.deepcopy(masked).double(), masked, 1.0
    own = next((p.dtype for p in rough.parameters() if p.is_floating_point()), torch.float32)
    if own is torch.float64:  # what float32 loses, in proportion
        rough, own, scale = nn.Module.float(copy.deepcopy(rough)), torch.float32, eps / torch.finfo(torch.float32).eps
    fine = [outputs_of(exact, one, torch.float64) for one in inputs]
    allowed = floors(fine, [outputs_of(rough, one, own) for one in inputs])
    got = [outputs_of(small, one, fault=Difference) for one in inputs]
    worst = _compare(zip(inputs, fine, got, allowed, strict=True), MULTIPLE * scale, "as saved") / scale
    return (
        f"the small model is at most {worst:.2g} times as far from the masked one in float64 as that one's own "
        f"rounding ({MULTIPLE:g} times allowed), on {'; '.join(one.name for one in inputs)}"
    )


def _check_reweightings(
    masked: nn.Module, small: nn.Module, inputs: Sequence[Inputs], plan: Plan, eps: float, times: int, seed: int
) -> str:
    """The plan alone, in float64: with the masked model's numbers, then with others in all that is not zero."""
    exact, small = copy.deepcopy(masked).double(), copy.deepcopy(small).double()
    generator, worst = torch.Generator().manual_seed(seed), 0.0
    for number in range(times + 1):
        which = f"re-weighting {number}" if number else "in float64"
        with torch.no_grad():
            for parameter in exact.parameters() if number else ():
                # Zeros stay. So do signs: relu(-b) is 0 because of one.
                parameter.mul_(torch.rand(parameter.shape, generator=generator, dtype=torch.float64) + 0.5)
        named = tensors_of(exact)
        with Watch({fold.weight: named[fold.weight] for fold in plan.folds}) as watch:
            fine = [outputs_of(exact, one, torch.float64) for one in inputs]
        constants = _constants(plan, watch, which, None if number else eps)
        with torch.no_grad():
            for name, tensor in tensors_of(small).items():
                tensor.copy_(plan.small(name, named, constants)[0])
        got = [outputs_of(small, one, torch.float64, Difference) for one in inputs]
        rough = nn.Module.float(copy.deepcopy(exact))  # some models refuse their own
        allowed = floors(fine, [outputs_of(rough, one, torch.float32) for one in inputs])
        worst = max(worst, _compare(zip(inputs, fine, got, allowed, strict=True), 1.0, which))
    return (
        f"the plan follows from the zeros: in float64, with the weights as they are and with {times} sets of other "
        f"numbers in them, it is off by at most {worst:.1g} of what float32 loses"
    )


def _constants(plan: Plan, watch: Watch, which: str, eps: float | None) -> list[Tensor]:
    """What the folded channels held; with ``eps`` that is what the plan says. Raises `Difference` where one varied."""
    found = []
    for fold in plan.folds:
        if fold.weight not in watch.seen:
            raise Unusable(f"no matrix product of the masked model was seen to read {fold.weight}, which has folds")
        low, high = (side[fold.columns] for side in watch.seen[fold.weight])
        size = torch.maximum(low.abs(), high.abs())
        wrong = high - low > _CONSTANT_ROUNDINGS * torch.finfo(torch.float32).eps * size
        if eps is not None:
            size = torch.maximum(size, fold.constants.abs()).max()
            wrong |= (fold.constants - low).abs() > _CONSTANT_ROUNDINGS * eps * size
        if bool(wrong.any()):
            column, says, lowest, highest = (float(t[wrong][0]) for t in (fold.columns, fold.constants, low, high))
            raise Difference(
                f"channel {int(column)} of what {fold.weight} reads is folded as the constant {says:.6g}; in the "
                f"masked model it lies between {lowest:.6g} and {highest:.6g} ({which})"
            )
        found.append((low + high) / 2)
    return found


def _compare(
    runs: Iterable[tuple[Inputs, list[Tensor], list[Tensor], Sequence[Tensor]]], multiple: float, which: str
) -> float:
    """The largest difference in units of the rounding floor; raises `Difference` over ``multiple``."""
    worst = 0.0
    for one, fine, got, floor in runs:
        if [t.shape for t in fine] != [t.shape for t in got]:
            raise Difference(f"the small model's outputs have other shapes than the masked one's on {one.name}")
        worst = max(worst, *map(distance, fine, got, floor))
        if not worst <= multiple:
            far = f"{worst:.3g} times as far from the masked one as rounding brings that one"
            raise Difference(f"the small model is {far} ({multiple:.3g} times allowed) on {one.name}, {which}")
    return worst


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers under all their names."""
    return dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
