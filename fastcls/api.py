"""fastcls in Python, as the shell has it: train a recipe, open a run, compare; what comes back shows itself.

from fastcls import Run, compare, recipe
recipe('digits-cnn').run(epochs=3)                        # a Run: in a notebook its figures and curves
compare('digits-cnn', vary={'dropout': [0, 0.3]}, seeds=3)     # a Comparison: its table and figure
Run('last').history                                       # a DataFrame; opening a run needs no torch
save(learn, 'mine')                                       # a Run from any fastai Learner
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcls.cli import settings as typed
from fastcls.cli.request import request_of
from fastcls.errors import KnobError, OutputError, UsageError
from fastcls.runfolder import runs, schema
from fastcls.running import loading
from fastcls.settings import shell, sources
from fastcls.settings.knobs import as_text
from fastcls.settings.options import DECLARED, TYPES
from fastcls.settings.request import Request

if TYPE_CHECKING:
    import pandas as pd
    from fastai.learner import Learner

    from fastcls.reports import comparison as compared
    from fastcls.reports.runfiles import RunFiles

Paths = str | PathLike[str]
TEXT = {name: str for name in ("split", "path", "label", "prediction")}  # a class may be called 007 or NA


class Recipe(loading.Recipe):
    """A recipe whose code is loaded: `get_learner` and `fit` are its functions, `run` is the whole training."""

    def run(self, *, out: Paths | None = None, quiet: bool = False, **settings: Any) -> Run:
        """Train from the data to the report, as `fastcls recipe` does; gives the run.

        settings: the recipe's knobs, and the options of every run by their names in `fastcls recipe --help` (seed,
        limit, keep, …; `extra` takes a mapping, as -o does). out: the run folder. quiet: show nothing meanwhile.
        KnobError names every wrong setting.
        """
        from fastcls.machine.screen import Screen
        from fastcls.running.runner import run
        from fastcls.running.series import command

        request = _request(self.source, settings)
        request.out = None if out is None else Path(out).expanduser()
        request.command = command(request)
        return Run(run(request, Screen(quiet)))

    def _repr_html_(self) -> str:
        from fastcls.reports import cell

        return cell.of_recipe(self.source.title, {"claim": self.source.claim}, self.source.knobs)


def recipe(name: str) -> Recipe:
    """The recipe of that name or file, loaded: `recipe('pets-resnet50').get_learner(size=128)` is a Learner."""
    loaded = loading.recipe(name)
    return Recipe(loaded.source, loaded.module)


class Run:
    """A run folder, read without torch and without running anything of it; in a notebook its figures and curves."""

    def __init__(self, name: Paths = "last") -> None:
        """name: a folder, a run's name under runs/, a recipe's (its newest run) or 'last'."""
        self.path: Path = runs.find(fspath(name))

    @property
    def record(self) -> dict[str, Any]:
        """run.json: knobs, options, seed, versions, device, status."""
        return self._files.info

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """A row a split and figure, with columns value, low, high (of its 95 % interval) and n."""
        import pandas as pd

        from fastcls.reports.scores import scores

        found = {
            (split, key): (score.value, score.low, score.high, score.n)
            for split in self._files.splits()
            for key, score in scores(self._files, split).items()
        }
        index = pd.MultiIndex.from_tuples(found, names=["split", "figure"]) if found else None
        return pd.DataFrame(list(found.values()), index=index, columns=["value", "low", "high", "n"])

    @cached_property
    def history(self) -> pd.DataFrame:
        """A row an epoch: phase, epoch, step, lr, losses, metrics, seconds; empty before the first."""
        table = self._files.history.dropna(axis=1, how="all")
        return table.astype({"epoch": int}) if len(table) else table

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """A row an evaluated image: split, path, label, prediction, confidence, loss, probabilities."""
        return self._table("predictions.csv")

    @cached_property
    def suspects(self) -> pd.DataFrame:
        """Labels that the network contradicts, the clearest first."""
        return self._table("suspects.csv")

    @property
    def report(self) -> Path:
        """The page with everything; of a run that did not end it may not be there."""
        return self.path / "report.html"

    def predict(
        self, paths: Paths | Iterable[Paths], top_k: int = 0, calibrated: bool = False, tta: bool = False
    ) -> pd.DataFrame:
        """Labels of images, folders or patterns, as `fastcls predict` gives them: path, prediction, confidence, error.

        top_k: so many classes more, likeliest first. calibrated: the logits divided by the run's temperature. tta: the
        mean over image and mirror image. Through model.onnx; an image that cannot be read has an error.
        """
        import pandas as pd

        from fastcls.datasets.inputs import collect
        from fastcls.inference.answers import Table
        from fastcls.inference.predictor import Predictor, temperature_of

        names = [fspath(path) for path in ([paths] if isinstance(paths, str | PathLike) else paths)]
        predictor = Predictor(self.path, temperature_of(self.path) if calibrated else 1, mirror=tta)
        table = Table(predictor.classes, top_k)
        return pd.DataFrame(table.rows(predictor.predict(collect(names))), columns=list(table.columns))

    @cached_property
    def _files(self) -> RunFiles:
        from fastcls.reports.runfiles import read

        return read(self.path)

    def _table(self, name: str) -> pd.DataFrame:
        import pandas as pd

        try:
            return pd.read_csv(self.path / name, dtype=TEXT, keep_default_na=False, na_values={"confidence": [""]})
        except (OSError, ValueError) as problem:
            raise OutputError(f"{self.path / name} cannot be read: {problem}.") from None

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        accuracy = self.metrics.query("figure == 'accuracy'")["value"].items() if len(self.metrics) else ()
        figures = [f"{split} accuracy {value:.4f}" for (split, _), value in accuracy]
        return f"Run({str(self.path)!r}): {', '.join([str(self.record.get('status')), *figures])}"

    def _repr_html_(self) -> str:
        from fastcls.reports import cell

        return cell.of_run(self._files, self.report)


def save(learn: Learner, folder: Paths, *, quiet: bool = False) -> Run:
    """A run folder of any fastai Learner on image files with a class each, however it was trained; gives the run.

    It is evaluated on its validation images, and on `learn.dls.test_items` if there are any; metrics, predictions,
    network, curves of the last fit and report are written. UsageError, and nothing written, where its labels are not
    one class an image, it has no validation images, or the folder holds something. quiet: show nothing meanwhile.
    """
    loading.import_fastai()
    from fastcls.machine.screen import Screen
    from fastcls.running import by_hand

    return Run(by_hand.save(learn, Path(folder).expanduser(), Screen(quiet)))


class Comparison:
    """Runs side by side: tables, figures and a page; in a notebook the table and the figures."""

    def __init__(self, found: compared.Comparison, page: Path) -> None:
        self.found, self.page, self.path = found, page, page.parent

    @property
    def runs(self) -> list[Run]:
        """Those that ended well."""
        return [Run(entry.folder) for entry in self.found.done]

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a setting, the best first: knobs, means, the difference to the baseline with its interval."""
        return self._read("table.csv", [row.setting for row in self.found.rows])

    @cached_property
    def results(self) -> pd.DataFrame:
        """A row a run: knobs, seed, figures, costs, folder."""
        return self._read("results.csv", [entry.setting for entry in self.found.entries])

    def _read(self, file: str, settings: Sequence[Mapping[str, str]]) -> pd.DataFrame:
        """A table of the comparison, its rows named by their settings."""
        import pandas as pd

        from fastcls.reports.comparison_table import name

        names = {tuple(row.setting.items()): name(row) for row in self.found.rows}
        index = pd.Index([names[tuple(setting.items())] for setting in settings], name="setting")
        return pd.read_csv(self.path / file).set_index(index)

    def __repr__(self) -> str:
        return f"Comparison({str(self.path)!r}): {len(self.found.rows)} settings, {len(self.found.done)} runs"

    def _repr_html_(self) -> str:
        from fastcls.reports import cell

        return cell.of_comparison(self.found, self.page)


def compare(
    *targets: Paths,
    vary: Mapping[str, Any] | None = None,
    settings: Sequence[Mapping[str, Any]] = (),
    seeds: int = 1,
    one_at_a_time: bool = False,
    out: Paths | None = None,
    **fixed: Any,
) -> Comparison:
    """A recipe over settings and seeds, or runs that exist (Runs, folders, names), as `fastcls compare` does.

    vary: knob or option -> its values; the whole grid of them, or `one_at_a_time` from the baseline, an ablation.
    settings: further ones, of several knobs each. fixed: knobs and options that all runs have. out: the comparison's
    folder; runs that are done are kept there. KnobError names every wrong setting; runs that fail are in
    `found.failed`.
    """
    from fastcls.comparison.comparison import folder_of
    from fastcls.reports.comparison import write
    from fastcls.running import grid

    names = [fspath(target) for target in targets]
    folder = None if out is None else Path(out).expanduser()
    if not names:
        raise UsageError("Name a recipe, or runs.", "compare('digits-cnn', vary={'dropout': [0, 0.3]}, seeds=3)")
    if len(names) == 1 and not any((Path(names[0]) / file).is_file() for file in (grid.PLAN, "run.json")):
        words = [f"{name}={as_text(value)}" for name, values in (vary or {}).items() for value in _several(values)]
        whole = [shlex.join(f"{name}={as_text(value)}" for name, value in one.items()) for one in settings]
        if seeds < 1:
            raise UsageError(f"seeds={seeds}: takes a whole number from 1.")
        plan = grid.plan(_request(sources.find(names[0]), fixed), words, whole, seeds, one_at_a_time, folder)
        return _made(plan, words, whole, seeds, one_at_a_time)
    if vary or settings or fixed:
        raise UsageError("vary, settings and knobs go with a recipe, not with runs.", f"Here: {', '.join(names)}")
    found = grid.existing(names, shell.command("compare", *names))
    return Comparison(found, write(folder or folder_of(found.entries), found))


def _made(plan: Any, vary: Sequence[str], whole: Sequence[str], seeds: int, one_at_a_time: bool) -> Comparison:
    """Make the runs that are not done; a line a run tells how far it is."""
    from fastcls.machine.screen import Screen
    from fastcls.reports.comparison import Comparison as Found
    from fastcls.reports.comparison import write
    from fastcls.running import grid
    from fastcls.running.series import command

    words = shlex.split(command(plan.request))
    words[1] = "compare"
    for flag, texts in (("--vary", vary), ("--setting", whole)):
        for text in texts:
            words += [flag, text]
    words += ["--one-at-a-time"] * one_at_a_time + ["--seeds", str(seeds), "--out", str(plan.out)]
    entries = grid.run_all(plan, Screen(), lambda so_far: None, quiet=True)
    found = Found(plan.title, shlex.join(words), entries, plan.baseline)
    return Comparison(found, write(plan.out, found))


def _several(values: Any) -> Sequence[Any]:
    """A knob's values; one alone is a value, not the letters of a text."""
    return [values] if isinstance(values, str) or not isinstance(values, Iterable) else list(values)


def _request(source: sources.RecipeSource, settings: Mapping[str, Any]) -> Request:
    """Settings by keyword, checked as those of the command line are."""
    problems = []
    chosen = {name: value for name, value in settings.items() if name in {*DECLARED, "time"}}
    for name, value in chosen.items():
        try:
            schema.check(value, TYPES.get(name, str), name)
        except ValueError as problem:
            problems.append(str(problem))
    if problems:
        raise KnobError("wrong settings:\n  " + "\n  ".join(problems))
    extra = [f"{name}={value}" for name, value in (settings.get("extra") or {}).items()]
    knobs = {name: value for name, value in settings.items() if name not in {*chosen, "extra"}}
    words = [f"--{name.replace('_', '-')}={as_text(value)}" for name, value in knobs.items()]
    flags = [f"--{name.replace('_', '-')}" for name in DECLARED]
    time = chosen.pop("time", "")
    return request_of(source, words, typed.checked(chosen, time), extra, flags)
