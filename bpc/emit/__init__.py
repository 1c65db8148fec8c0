"""Emission: small graphs as ONNX files and torch packages."""

from bpc.emit.check import ExportError
from bpc.emit.generation import GenerationExport, export_generation
from bpc.emit.onnx import OnnxExport, export_onnx, read_recipe
from bpc.emit.recipe import Recipe

__all__ = ["ExportError", "GenerationExport", "OnnxExport", "Recipe", "export_generation", "export_onnx", "read_recipe"]
