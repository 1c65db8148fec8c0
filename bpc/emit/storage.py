"""Writing an ONNX file: complete or not at all, weights beside it when they are too large for one file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import onnx_ir as ir

# protobuf refuses messages over 2 GB; leave room for the graph itself.
EXTERNAL_ABOVE = 1_900_000_000


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers."""
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)


def write(model: ir.Model, directory: Path, name: str, external: bool | None = None) -> Path:
    """Write ``model`` as ``directory/name``; weights beside it in ``name.data`` if ``external`` (None: over 1.9 GB)."""
    path = directory / name
    if external is None:
        external = weight_bytes(model) > EXTERNAL_ABOVE
    ir.save(model, path, external_data=f"{name}.data" if external else None)
    return path


class Staging:
    """A temporary directory beside the destination: files are written and checked there, then moved in place.

    A failed export leaves the destination as it was; a repeated one replaces it, its data file included.
    """

    def __init__(self, destination: str | os.PathLike[str]) -> None:
        self.destination = Path(destination)
        if self.destination.is_dir():
            raise IsADirectoryError(f"{self.destination} is a directory; give the path of the .onnx file to write")
        self.destination.parent.mkdir(parents=True, exist_ok=True)
        self._directory = tempfile.TemporaryDirectory(dir=self.destination.parent, prefix=".export-")

    def __enter__(self) -> Staging:
        return self

    def __exit__(self, *_: object) -> None:
        self._directory.cleanup()

    @property
    def directory(self) -> Path:
        """Where to write before `commit`."""
        return Path(self._directory.name)

    def commit(self, path: Path) -> None:
        """Move ``path`` (named like the destination) and its data file to the destination."""
        data, old = path.with_name(path.name + ".data"), self.destination.with_name(self.destination.name + ".data")
        if data.exists():
            os.replace(data, old)
        os.replace(path, self.destination)
        if not data.exists() and old.exists() and not _refers_to(self.destination, old.name):
            old.unlink()


def _refers_to(model: Path, data: str) -> bool:
    values = ir.load(model).graph.initializers.values()
    return any(isinstance(v.const_value, ir.ExternalTensor) and v.const_value.location == data for v in values)
