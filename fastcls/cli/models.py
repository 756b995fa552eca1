"""fastcls models: which architectures there are, what they cost, and which suits one's images."""

from __future__ import annotations

import shlex
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcls.cli import completion
from fastcls.cli.app import JSON, app, verb
from fastcls.cli.completion import argument, option
from fastcls.cli.output import document, table
from fastcls.datasets.walk import count
from fastcls.errors import OutputError, UsageError
from fastcls.log import logger
from fastcls.models.zoo import WORDS
from fastcls.runfolder import register
from fastcls.settings import shell

if TYPE_CHECKING:
    from fastcls.models.probes import Measured
    from fastcls.models.zoo import Architecture

AT_ONCE = 40  # networks whose figures a call computes: some ten seconds
ORDERS = ("name", "parameters", "gmacs", "accuracy")
COLUMNS = ("name", "library", "parameters", "gmacs", "input", "weights", "top1")


@app.command()
@verb
def models(
    pattern: str = argument(
        "PATTERN", "Part of a name (vgg), or a glob: 'resnet*'.", "", offers=completion.architectures
    ),
    weights: bool = option("--weights", "Only networks with pretrained weights."),
    sort: str = option(f"--sort {'|'.join(ORDERS)}", "Sort the rows by this column.", "name"),
    out: str = option("-o --out FILE", "Write a CSV file instead of the table."),
    suggest: str = option(
        "--suggest RUN|PATH", "Suggest networks for the images of a folder or a run.", offers=completion.runs
    ),
    labels: str = option("--labels FILE", "With --suggest: a CSV file of files and labels."),
    label_regex: str = option(
        "--label-regex PATTERN", "With --suggest: regular expression whose first group is the label in a file name."
    ),
    probe: str = option(
        "--probe suggested|NAME[=FILE],…",
        "With --suggest: measure the frozen features of these networks on some of the images.",
        offers=completion.several("suggested", *WORDS),
    ),
    as_json: bool = JSON,
) -> None:
    """List the networks for --arch, or suggest one.

    \b
    fastcls models                           torchvision's
    fastcls models 'resnet*' --weights       torchvision's and timm's of that name
    fastcls models --suggest photos          network, size and batch for these images and this machine
    fastcls models --suggest photos --probe small,base         also the accuracy of their features on these images

    M params: parameters in millions, with the library's own head. GMACs: 10⁹ multiply-accumulates per image of the
    input size (in pixels). Weights: whether pretrained ones exist. Top-1: ImageNet accuracy in %, as published by
    torchvision; timm's package has none, and its other figures are computed once, on this machine. --suggest chooses
    by the images and this machine. --probe downloads missing weights, unless NAME=FILE gives them.
    """
    if suggest:
        if pattern or out:
            raise UsageError(
                f"--suggest {suggest}: cannot be combined with a pattern or -o.", "fastcls models --suggest photos"
            )
        with document(as_json) as show:
            show(_suggest(suggest, labels, label_regex, probe))
        return
    if labels or label_regex or probe:
        raise UsageError("--labels, --label-regex and --probe need --suggest.", "fastcls models --suggest photos")
    if sort not in ORDERS:
        raise UsageError(f"--sort {sort}: expected {', '.join(ORDERS[:-1])} or {ORDERS[-1]}.")
    target = shell.path(out) if out else None
    if target is not None and (target.is_dir() or not target.parent.is_dir()):
        raise OutputError(f"-o {out}: this file cannot be written.", "Choose a file in an existing folder.")
    if target is not None:
        register.refuse_others(target, "-o")
    from fastcls.models import zoo

    if not zoo.is_kept():
        logger.info("listing the networks of torchvision and timm, once …")
    every = zoo.catalogue()
    found = zoo.matching(pattern, every) if pattern else [a for a in every if a.library == "torchvision"]
    chosen = {a.name for a in found if a.weights or not weights}
    missing = [a.name for a in found if a.name in chosen and a.gmacs is None]
    if missing:
        logger.info(f"computing figures of {count(len(missing[:AT_ONCE]), 'network')}, once …")
        every = zoo.figured(every, missing[:AT_ONCE])
    rows = sorted((a for a in every if a.name in chosen), key=lambda a: _rank(a, sort))
    if as_json:
        with document(as_json) as show:
            show([dict(zip(COLUMNS, row, strict=True)) for row in map(_figures, rows)])
        return
    if target is not None:
        _write(target, rows)
    else:
        _show(rows)
    if left := len(missing[AT_ONCE:]):
        print(f"\n{left:,} figures are still to be computed: the same command computes {AT_ONCE} more.")
    if not pattern:
        more = sum(a.library == "timm" and (a.weights or not weights) for a in every)
        print(f"\ntimm has {more:,} more:  fastcls models 'timm/*'\nFor your images:  fastcls models --suggest photos")
        print("\nBy size:\n" + "\n".join(f"--arch {word:7s}{name}" for word, name in WORDS.items()))


def _rank(architecture: Architecture, sort: str) -> float:
    """Where a row comes: least first, but the most accurate first; what is unknown last."""
    value = {
        "name": 0,  # the catalogue's own order
        "parameters": architecture.parameters,
        "gmacs": architecture.gmacs,
        "accuracy": None if architecture.top1 is None else -architecture.top1,
    }[sort]
    return float("inf") if value is None else float(value)


def _show(rows: Sequence[Architecture]) -> None:
    header, cells = ["name", "M params", "  GMACs", "input", "weights"], []
    for a in rows:
        parameters = "–" if a.parameters is None else f"{a.parameters / 1e6:,.1f}"
        macs = "–" if a.gmacs is None else f"{a.gmacs:,.2f}" if a.gmacs < 1000 else f"{a.gmacs:,.1f}"
        cells.append([a.name, f"{parameters:>8}", f"{macs:>7}", f"{_size(a):>5}", "yes" if a.weights else "no"])
    if any(a.top1 is not None for a in rows):
        header.append("top-1")
        cells = [[*row, "    –" if a.top1 is None else f"{a.top1:5.1f}"] for row, a in zip(cells, rows, strict=True)]
    print(table(header, cells))


def _write(target: Path, rows: Sequence[Architecture]) -> None:
    from fastcls.runfolder import runs

    register.wrote(runs.write_csv(target, COLUMNS, map(_figures, rows)))
    print(f"{count(len(rows), 'architecture')} in {target}")


def _figures(a: Architecture) -> list[Any]:
    return [a.name, a.library, a.parameters, a.gmacs, _size(a), "yes" if a.weights else "no", a.top1]


def _size(architecture: Architecture) -> str:
    height, width = architecture.input
    return str(width) if height == width else f"{height}×{width}"


def _suggest(target: str, labels: str, label_regex: str, probe: str) -> dict[str, Any]:
    """Print what suits the images; gives it too."""
    from fastcls.machine.extras import check_installation

    check_installation()
    from fastcls.models import suggest, zoo

    if probe:
        from fastcls.running.loading import import_fastai

        import_fastai()
    named = _named(probe)
    images = suggest.look(target, labels, label_regex)
    if probe and images.target.several:
        raise UsageError("--probe: it needs one class per image, and these have several labels.", "Omit --probe.")
    machine, noun = suggest.machine(), images.target.noun
    classes = f"{images.classes:,} {images.target.plural}"
    print(f"{images.where}: {images.count:,} images of {classes}, {images.a_class:,} per {noun} (median)")
    print(f"layout   {images.layout}")
    print(f"sizes    short side {images.short}, long side {images.long} pixels (medians of {images.sampled:,} images)")
    print(f"machine  {machine.name}, {machine.memory / 1e9:.0f} GB\n", flush=True)
    found = suggest.suggest(images, machine, lambda name: logger.info(f"timing {name} …"))
    suggested = {"pick": found.pick, "smaller": found.smaller, "larger": found.larger}
    rows = []
    for kind, one in suggested.items():
        if one is not None:
            memory, epoch = f"{one.cost.memory(one.batch) / 1e9:.1f} GB", f"{one.epoch / 60:,.1f} min"
            parameters = f"{one.cost.parameters / 1e6:.1f} M"
            knobs = [str(found.size), str(one.batch), found.tune]
            word = next((word for word, name in WORDS.items() if name == one.architecture.name), "")
            rows.append([kind, one.architecture.name, word, *knobs, f"{parameters:>10}", f"{memory:>7}", f"{epoch:>8}"])
    print(table(["", "arch", "word", "size", "bs", "tune", "parameters", " memory", "   epoch"], rows))
    print()
    for knob, why in suggest.reasons(images, machine, found):
        print(textwrap.fill(f"{knob:6s}{why}", shutil.get_terminal_size((100, 24)).columns, subsequent_indent=" " * 6))
    pick, weights = found.pick, "imagenet"
    if probe:
        names = {one.architecture.name: "imagenet" for one in suggested.values() if one is not None}
        best = _probe(images.files, named or names, found.size)
        other = best and suggest.option(zoo.named(best.arch), found.size, found.tune, images, machine)
        if best and other:
            pick, weights = other, best.weights
    name = pick.architecture.name
    settings = ["--arch", name, *(["--weights", weights] if weights != "imagenet" else [])]
    settings += ["--size", str(found.size), "--bs", str(pick.batch), "--tune", found.tune]
    print(f"\nfastcls recipe {shlex.join([*images.command, *settings])}\n")
    if weights == "imagenet":
        if suggest.on_disk(pick.architecture):
            print(f"{name}'s ImageNet weights are on this disk.")
        else:
            print(f"ImageNet weights exist for {name} but are not on this disk: the run will download them.")
    print(
        "Memory and time are for fp32, without loading images. Add --dry-run to the command to measure its own batch."
    )
    return {
        "images": {"where": images.where, "images": images.count, "classes": images.classes, "a_class": images.a_class},
        "suggestion": {"arch": name, "weights": weights, "size": found.size, "bs": pick.batch, "tune": found.tune},
        "reasons": dict(suggest.reasons(images, machine, found)),
        "command": shell.command("recipe", *images.command, *settings),
    }


def _named(probe: str) -> dict[str, str]:
    """Full names of the networks of --probe with their weights, 'imagenet' or a file; none for 'suggested'."""
    if probe in ("", "suggested"):
        return {}
    from fastcls.models import zoo
    from fastcls.models.weights import weights_file

    found = {}
    for word in probe.split(","):
        name, _, file = word.partition("=")
        architecture = zoo.named(zoo.resolve(name.strip()))
        if file:
            weights_file(file)
        found[architecture.name] = file or "imagenet"
    return found


def _probe(files: Sequence[Sequence[str]], networks: Mapping[str, str], size: int) -> Measured | None:
    """Measure the networks, print the table, and give the one that classified most images; None where none could be."""
    from fastcls.errors import WeightsError
    from fastcls.models import probes

    images = probes.sample(files)
    measured, missing = [], []
    for name, weights in networks.items():
        logger.info(f"probing {name} …")
        try:
            measured.append(probes.measure(images, name, weights, size))
        except WeightsError as problem:
            missing.append(f"{name} was not probed: {problem.message}\n{problem.hint}")
    rows = []
    for one in sorted(measured, key=lambda one: -one.right):
        low, high = one.interval
        accuracy = f"{100 * one.accuracy:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
        rows.append([one.arch, accuracy])
    if rows:
        which = f"{count(len(images), 'image')} of {images.label.nunique():,} classes"
        print(f"\nA linear layer on the frozen features, cross-validated on {which}, without the test split:\n")
        print(table(["probe", "accuracy (95 % interval)"], rows))
    print("".join(f"\n{text}" for text in missing), end="\n" if missing else "")
    return max(measured, key=lambda one: one.right, default=None)
