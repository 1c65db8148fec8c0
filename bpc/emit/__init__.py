"""Emission: small graphs as ONNX files and torch packages."""

from bpc.emit.check import ExportError
from bpc.emit.onnx import OnnxExport, export_onnx, read_recipe
from bpc.emit.recipe import Recipe

__all__ = ["ExportError", "OnnxExport", "Recipe", "export_onnx", "read_recipe"]
