"""fastcls runs: which runs there are and how they compare."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastcls.cli import completion
from fastcls.cli.app import JSON, app, verb
from fastcls.cli.completion import argument, option
from fastcls.cli.guard import chosen
from fastcls.cli.output import document, table
from fastcls.errors import OutputError
from fastcls.settings import shell

ORDERS = ("time", "accuracy", "loss")


@app.command()
@verb
def runs(
    words: list[str] = argument(
        "[RECIPE | show RUN | diff A B]",
        "Only this recipe's runs; the settings of one run; the differences between two.",
        None,
        offers=completion.recipes_or_runs,
    ),
    folder: str = option("--folder DIR", "Only the runs below this folder  [default: all]"),
    sort: str = option(f"--sort {'|'.join(ORDERS)}", "Sort the rows by this column.", "time"),
    as_json: bool = JSON,
) -> None:
    """List the runs with their status, metrics and given settings.

    \b
    fastcls runs                             all, oldest first
    fastcls runs pets-resnet50 --sort accuracy
    fastcls runs show last                   all settings of a run
    fastcls runs diff last runs/a            the settings that differ between two runs
    """
    from fastcls.errors import UsageError
    from fastcls.runfolder import runs as folders

    if sort not in ORDERS:
        raise UsageError(f"--sort {sort}: expected time, accuracy or loss.")
    words = words or []
    if len(words) > 1:
        with document(as_json) as show:
            _settings(words, show)
        return
    recipe = next(iter(words), "")
    found = folders.below(shell.path(folder)) if folder else folders.everywhere()
    if recipe:
        found = [run for run in found if recipe in (run.parent.name, folders.recipe_of(run))]
    if as_json:
        with document(as_json) as show:
            show([_record(run) for run in found])
        return
    if not found:
        where = f" in {shell.path(folder).absolute()}" if folder else ""
        print(f"No runs{f' of {recipe}' if recipe else ''}{where}. Start one:  fastcls recipe digits-cnn")
        return
    rows = []
    for run in found:
        try:
            rows.append(_row(run))
        except OutputError as problem:
            rows.append((0.0, 0.0, [_name(run), problem.message, *[""] * 5]))
    if sort != "time":
        rows.sort(key=lambda row: -row[0] if sort == "accuracy" else row[1])
    header = ["run", "status", "accuracy (95 %)", "loss", "images", "time", "settings"]
    print(table(header, [cells for _, _, cells in rows]))


def _settings(words: list[str], show: Callable[[Any], None]) -> None:
    """show RUN, diff A B."""
    from fastcls.errors import UsageError
    from fastcls.runfolder import runs as folders
    from fastcls.settings.configs import of_a_run
    from fastcls.settings.knobs import as_text

    what, *names = words
    if len(names) != {"show": 1, "diff": 2}.get(what):
        raise UsageError(
            f"runs {' '.join(words)}: show needs one run, and diff two.", "fastcls runs show RUN, fastcls runs diff A B"
        )
    paths = [chosen(name, done=False) for name in names]
    held = [of_a_run(folders.read_json(path / "run.json")) for path in paths]
    keys = list(dict.fromkeys(key for one in held for key in one))
    if what == "diff":
        keys = [key for key in keys if held[0].get(key, "–") != held[1].get(key, "–")]
    show({str(path): {key: one.get(key) for key in keys} for path, one in zip(paths, held, strict=True)})
    if not keys:
        print("The two runs have the same settings.")
        return
    cells = [[key, *(as_text(one[key]) if key in one else "–" for one in held)] for key in keys]
    print(table(["setting", *(str(path) for path in paths)], cells))


def _record(run: Path) -> dict[str, Any]:
    from fastcls.runfolder import runs as folders
    from fastcls.settings.configs import of_a_run

    found: dict[str, Any] = {"run": _name(run), "folder": run.absolute()}
    try:
        record = folders.read_json(run / "run.json")
        kept = ("recipe", "status", "reason", "started", "data", "wall_seconds")
        found |= {key: record.get(key) for key in kept} | {"settings": of_a_run(record)}
        found["metrics"] = folders.read_json(run / "metrics.json")
    except (OutputError, KeyError) as problem:
        found["problem"] = str(problem)
    return found


def _name(run: Path) -> str:
    """As other verbs take it: recipe/folder of those under runs/, the path of others."""
    return str(run) if run.is_absolute() else f"{run.parent.name}/{run.name}"


def _row(run: Path) -> tuple[float, float, list[str]]:
    from fastcls.runfolder import recorded, target
    from fastcls.runfolder import runs as folders

    record: dict[str, Any] = folders.read_json(run / "run.json")
    try:
        figures = folders.read_json(run / "metrics.json")
        split = "test" if "test" in figures else "valid"
        first = target.of(record.get("data") or {}).main
        accuracy, loss = figures[split][first], float(figures[split]["loss"]["value"])
        interval = "" if accuracy["low"] is None else f" ({accuracy['low']:.3f}–{accuracy['high']:.3f})"
        shown = f"{accuracy['value']:.4f}{interval} {split}"
        shown += "" if first == "accuracy" else f" {first}"
        value = accuracy["value"]
    except (OutputError, KeyError, TypeError, ValueError):  # a run that did not end, a file that was damaged
        value, loss, shown = 0.0, float("inf"), str(record.get("reason") or "–").splitlines()[0]
    cells = [
        _name(run),
        record.get("status", "?"),
        shown,
        "–" if loss == float("inf") else f"{loss:.4f}",
        f"{sum(record.get('data', {}).get('images', {}).values()):,}",
        f"{record['wall_seconds']:.0f} s" if "wall_seconds" in record else "–",
        " ".join(recorded.given(run, record)) or "defaults",
    ]
    return value, loss, cells
