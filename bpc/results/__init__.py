"""One result file for every command: what was measured, on what, and where; its table, and the comparison of two."""

from bpc.results.difference import ResultMismatch, difference_table
from bpc.results.figures import (
    agreement_figures,
    arithmetic_figure,
    bench_result,
    comparisons_of,
    count,
    layer_figures,
    score_figures,
    size_figures,
    timing_figures,
    with_small,
)
from bpc.results.result import SCHEMA, Figure, Result, ResultError, Value, read_result
from bpc.results.table import cells, result_markdown, result_table

__all__ = [
    "SCHEMA",
    "Figure",
    "Result",
    "ResultError",
    "ResultMismatch",
    "Value",
    "agreement_figures",
    "arithmetic_figure",
    "bench_result",
    "cells",
    "comparisons_of",
    "count",
    "difference_table",
    "layer_figures",
    "read_result",
    "result_markdown",
    "result_table",
    "score_figures",
    "size_figures",
    "timing_figures",
    "with_small",
]
