"""The table and the figure of benchmarks.transfer."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, show

Row = Mapping[str, Any]
ORDER = ("5", "10", "20", "all")
TITLES = {"pets": "Pets", "birds": "Birds", "imagenette": "Imagenette"}
NETWORKS = {"lite0": "EfficientNet-Lite0", "mobilenet_v2": "MobileNetV2"}
LABELS = {
    "ours-probe": "ours, probe",
    "ours-full": "ours, full",
    "fastai-4": "fastai, fine_tune(4)",
    "fastai-20": "fastai, fine_tune(20)",
    "timm": "timm, 30 epochs",
}
COLOURS = dict(zip(LABELS, ("tab:blue", "tab:green", "tab:orange", "tab:red", "tab:purple"), strict=True))
Setting = tuple[str, str, str]  # dataset, network, images a class


def grouped(rows: Iterable[Row]) -> dict[Setting, dict[str, list[Row]]]:
    """Setting -> method -> a row a seed, in the order of the table."""
    found: dict[Setting, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found[row["dataset"], row["network"], row["shots"]][row["method"]].append(row)
    places = ([*TITLES], [*NETWORKS], ORDER)
    order = sorted(found, key=lambda setting: [place.index(name) for place, name in zip(places, setting, strict=True)])
    return {setting: found[setting] for setting in order}


def seconds(rows: Iterable[Row]) -> float:
    """What training takes: processor seconds, on a GPU those of the clock."""
    return statistics.mean(row["wall_train" if row.get("device") == "cuda" else "cpu_train"] for row in rows)


def columns(rows: Iterable[Row]) -> tuple[list[str], list[list[str]], str]:
    """(columns, rows, note): a row a dataset, network and number of images; a column a method."""
    rows = list(rows)
    found = grouped(rows)
    methods = [method for method in LABELS if any(method in sides for sides in found.values())]
    body = [
        [TITLES[dataset], NETWORKS[network], shots, *(_cell(sides, method) for method in methods)]
        for (dataset, network, shots), sides in found.items()
    ]
    tested = {TITLES[row["dataset"]]: row["images"]["test"] for row in rows}
    which = ", ".join(f"{name} {tested[name]:,}" for name in TITLES.values() if name in tested)
    versions = sorted({", ".join(f"{name} {number}" for name, number in row["versions"].items()) for row in rows})
    dates = sorted({row["date"][:10] for row in rows})
    note = (
        "Test accuracy in %, mean ± standard deviation over seeds (their number); CPU seconds (user and system, one "
        "thread; on a GPU wall time) from the loaded libraries to the trained network, without evaluation and our "
        f"report; × is their ratio to our probe's. Test images: {which}; Imagenette's are a fixed selection of its "
        "3,925. A fifth of the images per class is held out for validation, the same for all methods. "
        f"{'; '.join(sorted({row['hardware'] for row in rows}))}; {'; '.join(versions)}; "
        f"{' to '.join(sorted({dates[0], dates[-1]}))}."
    )
    return ["images", "network", "a class", *(LABELS[method] for method in methods)], body, note


def _cell(sides: Mapping[str, list[Row]], method: str) -> str:
    if method not in sides:
        return "–"
    values = [100 * row["accuracy"] for row in sides[method]]
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    took = seconds(sides[method])
    probe = sides.get("ours-probe")
    ratio = f", {took / seconds(probe):.1f}×" if probe and method != "ours-probe" else ""
    return f"{statistics.mean(values):.1f}{spread} ({len(values)}); {took:,.0f} s{ratio}"


def table(rows: Iterable[Row]) -> str:
    """Markdown."""
    head, body, note = columns(rows)
    lines = [head, ["---"] * 2 + ["---:"] * (len(head) - 2), *body]
    return "\n".join([*("| " + " | ".join(line) + " |" for line in lines), "", note])


def save(rows: Iterable[Row]) -> None:
    """benchmarks/results/transfer.json, which scripts/performance puts into docs/performance.md, and its figure."""
    rows = list(rows)
    head, body, note = columns(rows)
    n = max(row["seed"] for row in rows) + 1
    show("transfer", "Transfer learning on few photographs", head, body, n, note)
    plot(rows, RESULTS.parents[1] / "docs" / "transfer.png")


def plot(rows: Iterable[Row], file: Path) -> None:
    """Accuracy against CPU seconds: a panel a dataset, a colour a method, a point a number of images a class."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    found = grouped(rows)
    datasets = list(dict.fromkeys(dataset for dataset, _, _ in found))
    figure, axes = plt.subplots(1, len(datasets), figsize=(5.2 * len(datasets), 4.8), squeeze=False)
    shapes = {"5": "o", "10": "s", "20": "^", "all": "D"}
    dashes = {"lite0": "-", "mobilenet_v2": ":"}
    used: set[str] = set()
    for axis, dataset in zip(axes[0], datasets, strict=True):
        for network, dash in dashes.items():
            for method, colour in COLOURS.items():
                points = [
                    (seconds(sides[method]), 100 * statistics.mean(r["accuracy"] for r in sides[method]), setting[2])
                    for setting, sides in found.items()
                    if setting[:2] == (dataset, network) and method in sides
                ]
                axis.plot([x for x, _, _ in points], [y for _, y, _ in points], dash, color=colour, linewidth=1)
                for x, y, shots in points:
                    filled = colour if network == "lite0" else "white"
                    axis.plot(x, y, shapes[shots], color=colour, markerfacecolor=filled, markersize=6)
                used |= {method} if points else set()
        axis.set(xscale="log", title=TITLES[dataset], xlabel="CPU seconds to train")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("accuracy on the test images, %")
    keys = [Line2D([], [], color=COLOURS[method], label=LABELS[method]) for method in LABELS if method in used]
    keys += [
        Line2D([], [], color="gray", linestyle=dash, marker="o", markerfacecolor="gray" if dash == "-" else "white",
               label=NETWORKS[network])
        for network, dash in dashes.items()
    ]  # fmt: skip
    keys += [
        Line2D([], [], color="gray", linestyle="", marker=shape, label=f"{shots} images a class")
        for shots, shape in shapes.items()
    ]
    figure.legend(handles=keys, loc="lower center", ncols=6, fontsize=9, frameon=False)
    figure.tight_layout(rect=(0, 0.14, 1, 1))
    figure.savefig(file, dpi=130)
    plt.close(figure)
