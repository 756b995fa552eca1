"""fastcls evaluate RUN PATH: a finished run on labelled images that came later."""

from __future__ import annotations

from fastcls.cli import completion
from fastcls.cli.app import JSON, app, progress, verb
from fastcls.cli.completion import argument, option
from fastcls.cli.guard import chosen
from fastcls.cli.output import document


@app.command()
@verb
def evaluate(
    run: str = completion.RUN,
    path: str = argument(
        "PATH", "A folder of labelled images, in a layout that the recipe `folder` supports, or a run."
    ),
    labels: str = option("--labels FILE", "A CSV file of files, labels and optional further columns."),
    label_regex: str = completion.LABEL_REGEX,
    split: str = option("--split train|valid|test", "Only the images of this split  [default: all]"),
    out: str = option("-o --out DIR", "New folder to write  [default: evaluations/NAME]"),
    skip_bad: bool = option("--skip-bad", "Skip images that cannot be read, and list them, instead of stopping."),
    trust: bool = option("--trust", "Run the code in the run's recipe.py if there is no ONNX file."),
    as_json: bool = JSON,
) -> None:
    """Evaluate a trained run on new labelled images.

    \b
    fastcls evaluate last new_site                        class folders, or train/ valid/ test/ of them
    fastcls evaluate last photos --labels may.csv         further columns (site, camera, age) become slices
    fastcls compare evaluations/may evaluations/may-2     two runs on the same new images

    It compares accuracy, F1 and loss with those on the run's own images, shows whether chance explains the difference,
    and whether the new images look like the old ones. Classes that the run does not know are counted separately; files
    that it was trained on are left out. It writes a run folder: predictions.csv, metrics.json, suspects.csv, a report.
    It uses the run's model.onnx, without torch. Exit code 3 if an image cannot be read, or none has a known class.
    """
    from fastcls import api
    from fastcls.cli.output import table
    from fastcls.reports.evaluated import evaluated
    from fastcls.reports.slices import of_split
    from fastcls.runfolder.run import open_run
    from fastcls.runfolder.text import visible

    words = {"labels": labels, "label_regex": label_regex, "split": split, "out": out or None, "skip_bad": skip_bad}
    with document(as_json) as show:
        found = api.evaluate(chosen(run), path, **words, trust=trust, progress=progress("evaluated", "images"))  # type: ignore[arg-type]
        files = open_run(found.path)
        for note in found.record.get("notes", []):
            print(visible(f"note     {note}"))
        compared, slices = evaluated(files), of_split(files, "new")
        assert compared is not None
        for name, lines in compared.lines.items():
            rows = [[one.new.name, one.new.text, one.own.text, one.gap] for one in lines]
            print("\n" + table(["", "new", f"own {name}", "difference (95 % interval)"], rows))
        sentences = [*compared.sentences, *([slices.sentence] if slices else [])]
        print(visible("\n" + "\n".join(sentences)))
        print(visible(f"\nfolder   {found.path}   report: {found.report}"))
        show(
            {
                "folder": found.path,
                "report": found.report,
                "sentences": sentences,
                "metrics": files.metrics,
                "evaluation": files.evaluation,
                "slices": found.slices.to_dict("records"),
            }
        )
