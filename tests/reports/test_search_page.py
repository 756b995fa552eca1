"""A search's page and figures, of a study that is made here: names and values are text, whatever is in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fastcls.settings.knobs import Knob
from fastcls.settings.space import dimensions

ODD = ("$x^2$", "<b>bold</b>", "a|b")


def test_a_page_shows_every_trial_and_escapes_every_name(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    from fastcls.comparison.study import Study
    from fastcls.reports.search import Page, write

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    knobs = [Knob("lr", "fit", "float", 0.1), Knob("arch", "get_learner", "choice", ODD[0], choices=ODD)]
    knobs += [Knob("filters", "get_learner", "list", (8,), item="int")]
    space = dimensions([("lr", "lr=1e-3..1:log"), ("arch", list(ODD)), ("filters", "filters=8/8,16")], knobs, {})
    study = Study(optuna.create_study(direction="minimize"), "loss", space, 1, "")
    for number in range(7):
        trial = study.ask()
        lr = study.values(trial)["lr"]
        for epoch in (1, 2):
            trial.report(lr / epoch, epoch)
        study.tell(trial, None if number in (2, 3) else lr, "<i>memory</i>" if number == 2 else "")
    results = study.results()
    assert [len(results.of(state)) for state in ("done", "pruned", "failed")] == [5, 1, 1]
    page = write(Page(tmp_path, "<h1>", "fastcls search", "fastcls recipe", {"lr": 0.1}, results)).read_text()
    assert "&lt;b&gt;bold&lt;/b&gt;" in page and "<b>bold" not in page and "<i>memory" not in page
    assert page.count("$x^2$") > 2 and page.count("<svg") == page.count('role="img"') == 13  # letters, not a formula
    assert "mathdefault" not in page
    for name in ("history", "importances", "slice-lr", "slice-arch", "slice-filters", "learning-curves", "parallel"):
        with Image.open(tmp_path / "figures" / f"{name}.png") as image:
            assert image.width > 800
    assert len((tmp_path / "search.csv").read_text().splitlines()) == 8
