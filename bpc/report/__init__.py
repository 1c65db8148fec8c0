"""Reports: what was pruned, as tables and pictures (`summarize`, `pattern_figure`, `write_report`)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bpc.report.curves import curves_figure, read_log
    from bpc.report.document import write_report
    from bpc.report.picture import pattern_figure
    from bpc.report.summary import Summary, summarize
    from bpc.report.table import pruning_table

__all__ = ["Summary", "curves_figure", "pattern_figure", "pruning_table", "read_log", "summarize", "write_report"]

_HOMES = {
    "Summary": "bpc.report.summary",
    "curves_figure": "bpc.report.curves",
    "pattern_figure": "bpc.report.picture",
    "pruning_table": "bpc.report.table",
    "read_log": "bpc.report.curves",
    "summarize": "bpc.report.summary",
    "write_report": "bpc.report.document",
}


def __getattr__(name: str) -> Any:
    """Lazily: tables need no matplotlib."""
    if name not in _HOMES:
        raise AttributeError(f"module 'bpc.report' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
