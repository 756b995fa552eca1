"""What a notebook shows of a run, a comparison or a recipe: HTML that stands alone in a cell, every name escaped."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from fastcls.comparison.comparison import Comparison
from fastcls.datasets.walk import count
from fastcls.reports import comparison, page, shell
from fastcls.reports import scores as scored
from fastcls.reports.figures import Figure
from fastcls.reports.learning import learning_figures, phases
from fastcls.reports.wording import duration, grouped
from fastcls.runfolder.run import Run
from fastcls.runfolder.text import clean, number
from fastcls.settings.knobs import REQUIRED, Knob, as_text

SHOWN = ("accuracy", "top5", "mAP", "macro_f1", "subset_accuracy", "loss", "ece")


def of_run(run: Run, report: Path) -> str:
    """A run's figures on each split, its curves, and what to know before believing them."""
    splits = [split for split in run.splits() if split in run.metrics]
    scores = {split: scored.scores(run, split) for split in splits}
    many = len(run.model.get("classes", ())) > scored.MANY
    keys = [key for key in SHOWN if (key != "top5" or many) and any(key in found for found in scores.values())]
    rows = [[scored.NAMES[key], *(_score(scores[split].get(key)) for split in splits)] for key in keys]
    kept = number(run.get("best_epoch"))
    curves = learning_figures(
        run.history,
        run.metric_columns,
        phases(run.history) if len(run.history) else [],
        None if kept is None else int(kept),
    )
    facts = [clean(run.get("status") or "unknown")]
    if not run.history.empty:
        facts.append(count(len(run.history), "epoch"))
    if seconds := number(run.get("train_seconds")):
        facts.append(f"{duration(seconds)} of training")
    if parameters := number(run.get("network", "parameters")):
        facts.append(f"{grouped(parameters)} parameters")
    if device := clean(run.get("device", "name") or ""):
        facts.append(f"on {device}")
    first = splits[0] if splits else "valid"
    lines = [text for _, text in page.callouts(run, first, scores.get(first, {}), None)]
    header = ["", *(f"{split}, n = {grouped(run.metrics[split].get('n'))}" for split in splits)]
    return _render(clean(run.get("recipe") or "run"), facts, header if rows else [], rows, lines, curves, report)


def _score(score: scored.Score | None) -> str:
    if score is None:
        return "–"
    return f"{score.text} ({score.interval})" if score.interval else score.text


def of_comparison(found: Comparison, file: Path) -> str:
    """A comparison's table, how to read it, and its figures."""
    header, rows = comparison.table(found)
    lines = comparison.sentences(found)
    lines += [f"{clean(entry.folder)} failed: {clean(entry.failed)}" for entry in found.failed]
    facts = [count(len(rows), "setting"), count(len(found.done), "run")]
    table = [[clean(text) for text in row] for row in comparison.texts(rows)]
    return _render(clean(found.title), facts, header, table, lines, comparison.figures_of(found), file)


def of_recipe(title: str, fields: dict[str, str], knobs: Sequence[Knob]) -> str:
    """A recipe's claim and its knobs."""
    rows = [[knob.name, "" if knob.default is REQUIRED else as_text(knob.default) or "''", knob.help] for knob in knobs]
    return _render(title, [], ["knob", "default", ""], rows, [f"{name}: {text}" for name, text in fields.items()])


def _render(
    title: str,
    facts: Sequence[str],
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    remarks: Sequence[str],
    figures: Sequence[Figure] = (),
    file: Path | None = None,
) -> str:
    drawn = [(figure.alt, round(70 * figure.width), base64.b64encode(figure.png()).decode()) for figure in figures]
    template = shell.environment().get_template("cell.html.j2")
    values = {"title": title, "facts": facts, "header": header, "rows": rows, "remarks": remarks, "figures": drawn}
    return template.render(**values, file=clean(file) if file else "")
