"""Reports: what was pruned, as a page, as a table and as a picture (`write_report`, `pruning_table`, `summarize`)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bpc.report.curves import read_log
    from bpc.report.document import report_html, write_report
    from bpc.report.layers import Summary
    from bpc.report.summary import summarize
    from bpc.report.table import pruning_table

__all__ = ["Summary", "pruning_table", "read_log", "report_html", "summarize", "write_report"]

_HOMES = {
    "Summary": "bpc.report.layers",
    "pruning_table": "bpc.report.table",
    "read_log": "bpc.report.curves",
    "report_html": "bpc.report.document",
    "summarize": "bpc.report.summary",
    "write_report": "bpc.report.document",
}


def __getattr__(name: str) -> Any:
    """Lazily: tables need no templates."""
    if name not in _HOMES:
        raise AttributeError(f"module 'bpc.report' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
