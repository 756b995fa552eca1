"""A run folder's report: one self-contained page and its figures, made from the run's files alone."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from fastcls.audit import check_record
from fastcls.errors import OutputError, UsageError, did_you_mean
from fastcls.reports import deciding, labels, page, shell, wording
from fastcls.reports import scores as scored
from fastcls.reports.classes import WHOLE_MATRIX, matrix_figure, outcome
from fastcls.reports.curves import curve_figures
from fastcls.reports.curves import curves as ranking_curves
from fastcls.reports.evaluated import evaluated
from fastcls.reports.figures import Figure, save
from fastcls.reports.gallery import KINDS, SUSPECTS, Doubts, copies, doubtful, pictured
from fastcls.reports.images import images
from fastcls.reports.learning import learning_figures
from fastcls.reports.slices import of_split
from fastcls.reports.thumbnails import Thumbnails
from fastcls.reports.trust import EFFECTS, effects, trust
from fastcls.runfolder import model_files, runs
from fastcls.runfolder import target as targets
from fastcls.runfolder.predictions import HeldOut, held_out
from fastcls.runfolder.run import Run, open_run
from fastcls.runfolder.text import clean, number


def write(
    run: Path, split: str | None = None, status: str | None = None, each: int = 0, costs: str = "", odd: str = ""
) -> Path:
    """Write `report.html` and `figures/*.png` into a run folder and return the page's path.

    status: how the run ended, where run.json does not say it yet. each: pictures of a cell of the confusion matrix, at
    least. costs, odd: of `deciding.decided`.
    """
    files = open_run(Path(run))
    if status:
        files.info["status"] = status
    for name in (model_files.WEIGHTS, model_files.NETWORK):  # else these would be another network's figures
        model_files.verify(files.folder, name, files.model)
    chosen = _choose(files, split)
    html, drawn = _render(files, chosen, each, costs, odd)
    save(drawn, files.folder)
    return runs.atomic_write(files.folder / "report.html", html)


def _choose(files: Run, split: str | None) -> str:
    known = files.splits()
    if split is None:
        return known[0] if known else "valid"
    if known and split not in known:
        message = f"The {split!r} split of {files.folder} has not been evaluated{did_you_mean(split, known)}."
        raise OutputError(message, f"Evaluated: {', '.join(known)}.")
    return split


def _render(files: Run, split: str, each: int, costs: str, odd: str) -> tuple[str, list[Figure]]:
    classes = files.model.get("classes") or []
    names = [clean(name) for name in classes]
    thumbnails = Thumbnails(files.get("data", "root"), files.heatmaps.get(split), files.model.get("preprocessing"))
    predictions, checked = files.predictions, check_record.read(files.folder)
    target, temperature = targets.of(files.model), number(files.model.get("temperature"))
    if target.several and (costs or odd):
        flag = "--costs" if costs else "--odd"
        raise UsageError(f"{flag}: it needs one class per image, and this run has several labels.", f"Omit {flag}.")
    belief: Any
    decided: Any
    if target.several:
        splits = labels.held(files, names)
        held = splits.get(split)
        ranks, doubts = (labels.curves(held), labels.doubtful(held, names)) if held else (None, Doubts([]))
        result = labels.outcome(held, names, thumbnails, each) if held else None
        belief = labels.trust(held, names, temperature, split)
        decided = labels.decided(splits, names)
        together = labels.together(held, names) if held else []
    else:
        judged, together = dict[str, HeldOut](), []
        with contextlib.suppress(OutputError):  # what cannot be read is said at the top of the page
            judged = held_out(files.folder, classes)
        known = judged.get(split)
        ranks = ranking_curves(known.labels, known.entries, len(names)) if known else None
        doubts = doubtful(known, names) if known else Doubts([])
        precisions = dict(zip(names, ranks.average_precision, strict=True)) if ranks else {}
        counts = None if files.counts is None else files.counts[files.counts["split"] == split]
        result = outcome(predictions[predictions["split"] == split], names, thumbnails, precisions, each, counts)
        own = predictions[(predictions["split"] == split) & (predictions["label"] != "")]
        belief = trust(own, temperature, split)
        decided = deciding.decided(files.folder, judged, classes, temperature, costs, odd)
    count = len(names) or (result.classes if result else 0)
    found = scored.scores(files, split)
    top = scored.tiles(found, count, target)
    accuracy = next((score for score in top if score.key == target.main), None)
    right = found.get(target.share) or accuracy
    phases, verdict, epochs, kept = page.learning(files, count)
    curves = learning_figures(files.history, files.metric_columns, phases, kept)
    matrix = [matrix_figure(result.matrix, split, target)] if result else []
    ranking = curve_figures(ranks)
    layers, layers_left = page.layers(files)
    claim = clean(files.get("claim") or "")
    drawn = [*curves, *matrix, *ranking, *(belief.figures if belief else [])]
    measured, shortcuts = deciding.shortcuts(checked, right)
    html = shell.render(
        "template.html.j2",
        run=files,
        split=split,
        splits=files.splits(),
        name=files.folder.resolve().name,
        recipe=clean(files.get("recipe") or "unnamed recipe"),
        title=page.title(files),
        claim=claim,
        status=clean(files.get("status") or "unknown"),
        moods=page.STATUS,
        started=wording.moment(files.get("started")),
        device=clean(files.get("device", "name") or files.get("device", "type") or "unknown"),
        images=files.get("data", "images"),
        command=clean(files.get("command") or ""),
        callouts=[*(("warn", text) for text in shortcuts), *page.callouts(files, split, found, result)],
        decided=decided,
        measured=measured,
        tiles=top,
        several=target.several,
        noun=target.noun,
        plural=target.plural,
        accuracy=right,
        main=accuracy,
        together=together,
        outcome=result,
        count=count,
        guess=scored.guess_sentence(right, result),
        probe=scored.probe_sentence(files, split),
        claimed=scored.claim_sentence(claim, right, bool(files.get("options", "limit")), split),
        all_scores={
            name: {key: score for key, score in metrics.items() if ":" not in key}
            for name in files.splits()
            if (metrics := scored.scores(files, name))
        },
        phases=phases,
        verdict=verdict,
        probed=(files.history["phase"] == runs.PROBE).any() if len(files.history) else False,
        epochs=epochs,
        kept=kept,
        long_table=page.LONG_TABLE,
        objective=page.objective_sentence(files, kept),
        metric_columns=files.metric_columns,
        curves=curves,
        matrices=matrix,
        ranking=ranking,
        ranks=ranks,
        whole_matrix=WHOLE_MATRIX,
        slices=of_split(files, split),
        evaluated=evaluated(files),
        folds=(files.get("folds") or {}).get("runs") or [],
        kinds=KINDS,
        trust=belief,
        effects=effects(files.metrics, files.splits()),
        effect_names=EFFECTS.values(),
        trust_figures=belief.figures if belief else [],
        trained_phases=page.trained_phases(files),
        doubts=doubts.rows,
        doubts_sentence=doubts.sentence,
        doubt_pictures=pictured(doubts.rows, thumbnails),
        data=images(files, checked),
        copies=copies(checked, thumbnails),
        layers=layers,
        layers_left=layers_left,
        model=files.model,
        settings=page.settings(files),
        lost_pictures=thumbnails.lost,
        no_heat=page.no_heat(files),
    )
    runs.write_csv(files.folder / "suspects.csv", SUSPECTS, doubts.rows)
    return html, drawn
