"""fastcls lr-find NAME: which learning rate to train a recipe with."""

from __future__ import annotations

import typer

from fastcls.cli import completion
from fastcls.cli.app import app, verb
from fastcls.cli.completion import option
from fastcls.cli.settings import TAKES_KNOBS, Settings, build, command_line, takes_settings
from fastcls.runfolder import register, runs
from fastcls.settings import shell


@app.command("lr-find", context_settings=TAKES_KNOBS, cls=completion.TakesKnobs)
@verb
@takes_settings(only=["seed", "limit", "skip_bad", "workers", "device", "precision", "cache_gb"])
def lr_find(
    ctx: typer.Context,
    name: str = completion.RECIPE,
    out: str = option("-o --out FILE", "File of the figure, .png, .svg or .pdf.", "lr-find.png"),
    steps: int = option("--steps N", "Number of mini-batches.", 100, min=20),
    *,
    settings: Settings,
) -> None:
    """Find a learning rate for a recipe, with fastai's finder.

    \b
    fastcls lr-find pets-resnet50
    fastcls lr-find folder --path photos --bs 16

    It draws a figure and suggests four learning rates, with a command that uses one. It accepts every knob of the
    recipe, like `fastcls recipe`.
    """
    from fastcls.errors import OutputError, UsageError
    from fastcls.settings import sources

    source = sources.find(name)
    request = build(ctx, source, ctx.args, settings.options(keep="last"), settings.extra)
    request.command = command_line("lr-find")
    figure = shell.path(out)
    if figure.suffix not in (".png", ".svg", ".pdf"):
        raise UsageError(f"--out {out}: the figure must be a .png, .svg or .pdf file.")
    if not figure.parent.is_dir():
        raise OutputError(f"--out {out}: the folder {figure.parent} does not exist.")
    runs.check_place(figure.parent)
    register.refuse_others(figure, "--out")

    from fastcls.running.loading import import_fastai

    import_fastai()
    from fastcls.machine.screen import Screen
    from fastcls.running.lr_find import find_rates

    find_rates(request, figure, steps, Screen())
