"""The certificate: what `shrink` did, as data that someone else can check.

It names the weights that went in and those that came out by their hashes, and holds the plan between them, the passes
that ran and how far the two models were apart. `bpc verify` checks it without any of the code that made it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, get_args

import torch

from passes.ir.tensors import masked, pieces
from passes.strict import parse_json, short

View = Literal["graph", "module"]

_FORMAT = 1
_DIGEST = "digest"


class CertificateError(ValueError):
    """Text that is no certificate, or one that was changed; the message names the entry."""


@dataclass(frozen=True, repr=False)
class Certificate:
    """See the fields; `to_json` adds a hash of all of them, so that a change is noticed.

    ``view`` says what ``small`` and ``plan`` describe: the small graph (an ONNX file), or the user's module with
    smaller layers (a saved directory), whose plan may be coarser and has the numbers its forward reads.
    """

    view: View
    dtype: str  # the least precise one on the way to the outputs, "float32"
    seed: int  # of the fresh inputs
    options: Mapping[str, Any]  # of `shrink`
    versions: Mapping[str, str]  # {package: version}
    masked: Mapping[str, str]  # {parameter: `digest`}, masks applied
    small: Mapping[str, str]
    plan: Mapping[str, Any]  # `Plan.to_json`
    passes: tuple[Mapping[str, Any], ...]  # name, modified, counts of what was done; in the order they ran
    agreement: Mapping[str, Any] | None  # shapes tried, differences and their floor; None where nothing was run

    def __repr__(self) -> str:
        ran = "not run" if self.agreement is None else f"apart by {self.agreement.get('max_abs_diff')}"
        return f"Certificate({self.view}, {self.dtype}, {len(self.masked)} tensors → {len(self.small)}, {ran})"

    def to_json(self) -> str:
        data = {"format": _FORMAT, **asdict(self)}
        return json.dumps({**data, _DIGEST: hash_of(data)}, indent=1)

    @staticmethod
    def from_json(text: str) -> Certificate:
        """Read a certificate back. Raises `CertificateError`, and nothing else, for any other text."""
        try:
            data = parse_json(text)
            expected = data.pop(_DIGEST, None) if isinstance(data, dict) else None
            actual = hash_of(data)
        except ValueError as error:
            raise CertificateError(f"no certificate: not JSON ({error})") from None
        if not isinstance(data, dict) or data.get("format") != _FORMAT:
            found = data.get("format") if isinstance(data, dict) else None
            raise CertificateError(f"no certificate of this version of bpc: format {found!r}, not {_FORMAT}")
        if expected != actual:
            raise CertificateError("the certificate was changed after it was written: its digest is another")
        del data["format"]
        names = [field.name for field in fields(Certificate)]
        if wrong := sorted({*names} ^ data.keys()):
            raise CertificateError(f"no certificate: {', '.join(wrong)} missing or unknown")
        for name, fits in _CHECKS.items():
            if not fits(data[name]):
                raise CertificateError(f"no certificate: {name} is {short(data[name])}")
        return Certificate(**{**data, "passes": tuple(data["passes"])})

    def of_module(
        self, plan: Mapping[str, Any], granularity: str, tensors: Iterable[tuple[str, torch.Tensor]]
    ) -> Certificate:
        """The same shrink as it shows in a module: its plan, how finely attention is cut, and the tensors it holds."""
        options = {**self.options, "granularity": granularity}
        return replace(self, view="module", options=options, plan=plan, small=digests(tensors))


def _is_text_table(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())


def _is_record(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("name"), str)
        and isinstance(value.get("modified"), bool)
        and isinstance(value.get("counts"), dict)
    )


_CHECKS = {
    "view": lambda v: v in get_args(View),
    "dtype": lambda v: isinstance(v, str) and isinstance(getattr(torch, v, None), torch.dtype),
    "seed": lambda v: type(v) is int,
    "options": lambda v: isinstance(v, dict),
    "versions": _is_text_table,
    "masked": _is_text_table,
    "small": _is_text_table,
    "plan": lambda v: isinstance(v, dict),
    "passes": lambda v: isinstance(v, list) and all(map(_is_record, v)),
    "agreement": lambda v: v is None or (isinstance(v, dict) and isinstance(v.get("shapes", []), list)),
}


def hash_of(data: Any) -> str:
    """sha256 of JSON data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def plain(value: Any) -> Any:
    """Dataclasses, tuples and torch's names as JSON has them; infinities, which it has not, in words."""
    text = json.dumps(value, default=lambda v: asdict(v) if hasattr(v, "__dataclass_fields__") else str(v))
    return json.loads(text, parse_constant=str)


def versions() -> dict[str, str]:
    """{"torch": ..., "bpc": ...}; "unknown" for a bpc that runs without being installed."""
    try:
        own = version("block-pruning-compiler")
    except PackageNotFoundError:
        own = "unknown"
    return {"torch": torch.__version__, "bpc": own}


def digests(tensors: Iterable[tuple[str, torch.Tensor]]) -> dict[str, str]:
    """{name: `digest`}, a few tensors at a time."""
    named = list(tensors)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # hashing holds no lock of the interpreter
        return dict(zip((name for name, _ in named), pool.map(digest, (t for _, t in named)), strict=True))


def digest(tensor: torch.Tensor, mask: torch.Tensor | None = None) -> str:
    """sha256 of a tensor's dtype, shape and numbers in row-major order; −0 counts as 0, as it does to every product.

    ``mask``: of its shape; entries where it is False count as 0.
    """
    tensor = tensor.detach().cpu()
    found = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
    if tensor.dim() == 0:
        tensor, mask = tensor.unsqueeze(0), None if mask is None else mask.unsqueeze(0)
    for rows in pieces(tensor) if tensor.numel() else ():
        piece = tensor[rows] if mask is None else masked(tensor[rows], mask[rows])
        if piece.is_floating_point():
            piece = piece + 0.0
        found.update(piece.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
