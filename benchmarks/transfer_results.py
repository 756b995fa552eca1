"""The table and the figure of benchmarks.transfer."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
ORDER = ("5", "10", "20", "all")
TITLES = {"pets": "Pets", "birds": "Birds", "imagenette": "Imagenette"}
NETWORKS = {"lite0": "EfficientNet-Lite0", "mobilenet_v2": "MobileNetV2"}
LABELS = {
    "ours-probe": "ours, probe",
    "ours-head": "ours, head",
    "ours-full": "ours, full",
    "fastai-4": "fastai, fine_tune(4)",
    "fastai-20": "fastai, fine_tune(20)",
    "timm": "timm, 30 epochs",
}
COLOURS = dict(zip(LABELS, ("tab:blue", "tab:cyan", "tab:green", "tab:orange", "tab:red", "tab:purple"), strict=True))
Setting = tuple[str, str, str]  # dataset, network, images a class


def grouped(rows: Iterable[Row]) -> dict[Setting, dict[str, list[Row]]]:
    """Setting -> method -> a row a seed, in the order of the table."""
    found: dict[Setting, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found[row["dataset"], row["network"], row["shots"]][row["method"]].append(row)
    places = ([*TITLES], [*NETWORKS], ORDER)
    order = sorted(found, key=lambda setting: [place.index(name) for place, name in zip(places, setting, strict=True)])
    return {setting: found[setting] for setting in order}


def mean(rows: Iterable[Row], name: str) -> float:
    return statistics.mean(row[name] for row in rows)


def table(rows: Iterable[Row]) -> str:
    """Markdown: a row a dataset, network and number of images; a column a method: accuracy (n), CPU seconds, ratio."""
    found = grouped(rows)
    methods = [method for method in LABELS if any(method in sides for sides in found.values())]
    images = {
        dataset: sides[0]["images"]["test"]
        for (dataset, _, _), methods_ in found.items()
        for sides in methods_.values()
    }
    lines = [
        "| images | network | a class | " + " | ".join(LABELS[method] for method in methods) + " |",
        "| --- | --- | ---: |" + " ---: |" * len(methods),
    ]
    for (dataset, network, shots), sides in found.items():
        cells = [_cell(sides.get(method, []), sides.get("ours-probe", [])) for method in methods]
        lines.append(f"| {TITLES[dataset]} | {NETWORKS[network]} | {shots} | " + " | ".join(cells) + " |")
    tested = ", ".join(f"{TITLES[name]} {count:,}" for name, count in images.items())
    note = [
        "",
        "Test accuracy in %, mean ± standard deviation over seeds (their number); CPU seconds (user and system, one",
        "thread) from the loaded libraries to the trained network, the test images and our report apart; × is their",
        f"ratio to our probe's. Test images: {tested} (of Imagenette a fixed {images.get('imagenette', 1000):,} of the",
        "3,925). A fifth of the images a class is held out of training for validation, by all methods alike.",
        *_machines(found),
    ]
    return "\n".join(lines + note)


def _cell(side: list[Row], probe: list[Row]) -> str:
    if not side:
        return "–"
    values = [100 * row["accuracy"] for row in side]
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    seconds = mean(side, "cpu_train")
    ratio = f", {seconds / mean(probe, 'cpu_train'):.1f}×" if probe and side is not probe else ""
    return f"{statistics.mean(values):.1f}{spread} ({len(values)}); {seconds:,.0f} s{ratio}"


def _machines(found: Mapping[Setting, Mapping[str, list[Row]]]) -> list[str]:
    rows = [row for sides in found.values() for side in sides.values() for row in side]
    machines = sorted({row["hardware"] for row in rows})
    versions = sorted({", ".join(f"{name} {number}" for name, number in row["versions"].items()) for row in rows})
    dates = sorted({row["date"][:10] for row in rows})
    return [f"{'; '.join(machines)}; {'; '.join(versions)}; {' to '.join(sorted({*dates[:1], *dates[-1:]}))}."]


def plot(rows: Iterable[Row], file: Path) -> None:
    """Accuracy against CPU seconds: a panel a dataset, a colour a method, a point a number of images a class."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

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
                    (mean(sides[method], "cpu_train"), 100 * mean(sides[method], "accuracy"), setting[2])
                    for setting, sides in found.items()
                    if setting[:2] == (dataset, network) and method in sides
                ]
                axis.plot([x for x, _, _ in points], [y for _, y, _ in points], dash, color=colour, linewidth=1)
                for x, y, shots in points:
                    filled = colour if network == "lite0" else "white"
                    axis.plot(x, y, shapes[shots], color=colour, markerfacecolor=filled, markersize=6)
                used |= {method} if points else set()
        axis.set(xscale="log", title=TITLES[dataset], xlabel="CPU seconds to train (one thread)")
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
