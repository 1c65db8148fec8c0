"""The part of docs/results.md on gradual pruning with recovery; benchmarks/tables.py writes the page."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import Any

from cells import lost, made, mean, percent, table

Row = dict[str, Any]


def settings(row: Row) -> str:
    """How the row's model was trained after pruning."""
    taught = f"hidden states × {row['hidden']:g}" if row["hidden"] else "logits alone"
    return f"{taught}, {row['epochs']:g} epochs, rate {row['rate']:g}"


def gradual(data: Row) -> str:
    """Every run, the methods in the order in which they were measured, then by what was asked for."""
    rows, counts = data["rows"], data["about"]["examples"]
    dense = rows["dense"]
    runs: dict[tuple[str, float, float, str], list[Row]] = defaultdict(list)
    for row in rows.values():
        if row["method"] != "dense":
            runs[row["method"], row["hidden"], row["target"], settings(row)].append(row)
    lines = []
    for (name, _, target, how), found in runs.items():
        lines.append(
            [
                f"{name} to {target:g}×" if not name.startswith("layers") else name,
                how,
                str(len(found)),
                mean([row["speed"]["speedup"] for row in found], lambda x: f"{x:.2f}×"),
                mean([row["speed"]["arithmetic ratio"] for row in found], lambda x: f"{x:.2f}×"),
                *(_loss(_before(found), dense, name, count) for name, count in counts.items()),
                *(_loss(found, dense, name, count) for name, count in counts.items()),
                mean([_minutes(row) for row in found], lambda m: f"{m:.1f}"),
            ]
        )
    heads = (
        "",
        "recovery",
        "seeds",
        "measured",
        "arithmetic",
        *(f"untrained: {n}" for n in counts),
        *(f"lost: {n}" for n in counts),
    )
    heads = (*heads, "CPU min")
    parts = [
        _TEXT.format(calibration=data["about"]["calibration"], **counts),
        "Dense: "
        + ", ".join(f"{percent(dense[name]['accuracy'], count)} % on {name}" for name, count in counts.items())
        + ".",
        table(heads, lines),
        "![Points lost over measured speed-up](figures/method.svg)",
    ]
    return "\n\n".join([*parts, made(data)])


def _loss(found: list[Row], dense: Row, name: str, count: int) -> str:
    """Points lost, with the paired standard error of a single run; of several seeds the mean and the range."""
    if not found:
        return "–"
    if len(found) == 1:
        return lost(found[0][name], dense[name], count)
    whole = dense[name]["accuracy"]
    return mean([100 * (whole - row[name]["accuracy"]) for row in found], lambda points: f"{points:+.1f}")


def _before(found: list[Row]) -> list[Row]:
    """As they were pruned, before the training of this stage."""
    return [row["before"] for row in found if "before" in row]


def _minutes(row: Row) -> float:
    """Of this process: what pruning and training took it, without the timing, which other processes do."""
    return statistics.fsum(row.get(f"{part} cpu s", 0.0) for part in ("pruning", "training")) / 60


_TEXT = """## Gradual pruning with recovery: SST-2

Model, sentences, speed and rules are those of the next section: everything was chosen on {validation:,} validation
sentences, with the first seed; dev ({dev}) is read for the table. *Gradual*: `bpc.prune_once` to 2×, training, from
there to 3.5×, training, from there to 6×, training: one run gives all three. Training distils the dense model on the
other training sentences, embeddings frozen: its logits, or hidden states beside them. *Movement* learns masks to a
target from the start, in as many epochs; *layers*: only these of the six are left; *magnitude*, *random*, *reverse*:
the widths of *gradual*, other units. {calibration} training sentences calibrate. *Lost*: points below the dense model,
with the paired standard error, or the range over seeds; *untrained*: the same before the training of this stage.
*CPU min*: of pruning and training on one thread; for *movement* and *layers* of the whole run, for the others of this
stage alone. What was measured once is not measured again, so that later runs prune in less time than the first.
Rows are still being added."""
