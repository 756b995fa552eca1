"""fastcls recipe NAME: train a recipe, or look at it."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fastcls import log
from fastcls.cli import completion
from fastcls.cli.app import app, verb
from fastcls.cli.completion import argument, option
from fastcls.cli.processes import GPUS, PROCESSES, count, launched_folder, on_gpus, start
from fastcls.cli.settings import TAKES_KNOBS, Settings, build, command_line, takes_settings
from fastcls.cli.streams import refusal
from fastcls.errors import FastclsError, OutputError, UsageError
from fastcls.machine import ranks
from fastcls.runfolder.text import visible
from fastcls.settings import shell
from fastcls.settings.options import DECLARED, SILENT

if TYPE_CHECKING:
    from fastcls.settings.knobs import Knob
    from fastcls.settings.request import Request
    from fastcls.settings.sources import RecipeSource

PATIENCE = 60.0  # seconds that --resume auto waits for a process of before to end, which its launcher left behind
STAGE_TITLES = {
    "get_learner": "Knobs of get_learner: data and network",
    "fit": "Knobs of fit: training",
}


class RecipeCommand(completion.TakesKnobs):
    """`recipe NAME --help` shows that recipe's claim and knobs."""

    def get_help(self, ctx: Any) -> str:
        return help_of(next(iter(ctx.meta.get("words", [])), "-"), self)


def help_of(name: str, command: Any) -> str:
    """The claim and knobs of a recipe, or, where no recipe is named, what `recipe` does."""
    from fastcls.settings import sources

    if name.startswith("-"):
        return _general_help(command)
    try:
        return _help(sources.find(name), command, name)
    except FastclsError as error:
        raise refusal(error) from None


@app.command(context_settings=TAKES_KNOBS, cls=RecipeCommand)
@verb
@takes_settings()
def recipe(
    ctx: typer.Context,
    name: str = argument("NAME", "A recipe's name, or a file: ./mine.py", "", offers=completion.recipes),
    out: str = option("-o --out DIR", "Run folder  [default: runs/NAME/TIME-xxxx]"),
    time: str = option("--time 20m", "Choose --epochs to train for about this long."),
    gpus: int | None = GPUS,
    processes: int | None = PROCESSES,
    auto_batch: bool = option("--auto-batch", "Find the largest batch size that fits into memory, starting from --bs."),
    dry_run: bool = option("--dry-run", "Build everything and try one batch, without training."),
    show: bool = option("--show", "Print the recipe's source."),
    overwrite: bool = option("--overwrite", "Remove the run in --out first."),
    config: str = option("--config FILE", "Read settings from a .yaml, .toml or run.json file."),
    print_config: bool = option("--print-config", "Print all settings as YAML, without training."),
    resume: str = option(
        "--resume RUN|auto",
        "Resume an interrupted run of this recipe; auto: the one in --out, if any.",
        offers=completion.runs,
    ),
    copy: str = option("--copy FILE", "Copy the recipe to a file of your own."),
    *,
    settings: Settings,
) -> None:
    """Train a recipe: data, network, training, report. `fastcls recipe NAME --help` shows its knobs."""
    from fastcls.settings import sources

    if not name or name.startswith("-"):
        print(_general_help(ctx.command))
        raise typer.Exit(2)
    source = sources.find(name)
    if show:
        print(source.source, end="")
    elif copy:
        _copy(source, Path(copy))
    elif resume and resume != "auto":
        from fastcls.cli.resume import go_on

        words = [*ctx.args, *(["--out"] if out else []), *settings.extra]
        if words:
            hint = shell.command("resume", resume, *words) if words[0] == "--path" else "Omit it."
            raise UsageError(f"--resume keeps the settings of the run: {words[0]} cannot be given.", hint)
        go_on(resume, recipe=source.name, gpus=gpus, processes=processes)
    else:
        asked = count(gpus, processes)
        options = on_gpus(settings.options(time), gpus)
        if auto_batch and max(asked, ranks.world()) > 1:
            raise UsageError(
                "--auto-batch works with a single process only.",
                "Use  --auto-batch --dry-run  on one GPU, and multiply what it finds by the number of GPUs for --bs.",
            )
        request = replace(
            build(ctx, source, ctx.args, options, settings.extra),
            out=shell.path(out) if out else None,
            command=command_line("recipe"),
        )
        if print_config:
            from fastcls.settings import configs

            print(configs.printed(request), end="")
            return
        settled = [*(["epochs"] if time else []), *(["bs"] if auto_batch else [])]
        if resume and _resumed(request, settled, gpus, processes):
            return
        if overwrite and not dry_run and ranks.first():
            _remove(request.out)
        if dry_run and ranks.first():
            from fastcls.machine.screen import Screen
            from fastcls.running.loading import import_fastai

            log.status(f"{source.name}: loading torch and fastai …")
            import_fastai()
            from fastcls.running.dryrun import dry_run as try_it

            try_it(_settled(request) if auto_batch else request, Screen())
        elif not dry_run:
            _train(request, asked, auto_batch)


def _resumed(request: Request, settled: Collection[str], gpus: int | None, processes: int | None) -> bool:
    """Continue the run in --out, if there is one; False where it is still to be started, or rank 0 knows which it is.

    settled: knobs that the run found a value for, whatever the command says of them.
    """
    from fastcls.cli.resume import go_on
    from fastcls.runfolder import runs

    if request.out is None:
        raise UsageError("--resume auto: no run folder given.", "Add  --out DIR")
    if not ranks.first():
        return False
    if request.options.checkpoints:
        _fetch(request, settled)
    if not (request.out / "run.json").is_file():
        runs.remove_beginning(request.out, request.source.source)
        return False
    folder = runs.find(str(request.out))
    record = runs.read_json(folder / "run.json")
    _refuse_another(request, folder, record, settled)
    if record.get("status") != "done":
        trusted = True  # it is the recipe that the command names
        go_on(str(folder), trust=trusted, recipe=request.source.name, gpus=gpus, processes=processes, patience=PATIENCE)
        return True
    if ranks.world() > 1:
        from fastcls.running import assist

        with assist.joined(assist.DONE):
            pass
    print(f"run      {request.out} is finished; --overwrite trains it again.")
    return True


def _refuse_another(
    request: Request, folder: Path, record: dict[str, Any], settled: Collection[str], name: str = ""
) -> None:
    """UsageError where the run in `folder`, called `name`, was not started by this command."""
    from fastcls.runfolder import recorded

    had, options = recorded.knobs(record), recorded.options(record)
    pairs = {k.name: (request.stage(k.stage)[k.name], had[k.name]) for k in request.source.knobs if k.name in had}
    chosen = set(DECLARED) - {*recorded.RESOLVED, *(set(SILENT) - {"seed"})}
    pairs |= {name: (getattr(request.options, name), getattr(options, name)) for name in sorted(chosen)}
    others = [
        f"--{name.replace('_', '-')}" for name, (now, then) in pairs.items() if now != then and name not in settled
    ]
    if others:
        raise UsageError(
            f"--resume auto: {name or folder} was started with a different {', '.join(others)}.",
            "Use the same settings, or another --out.",
        )
    held = recorded.recipe_file(folder, record)
    if held.is_file() and held.read_text(encoding="utf-8") != request.source.source:
        place = f"{folder} was started with a different {request.source.path}: {held}"
        hint = "Restore your recipe. The copy in the run folder is code: read it, and if you trust it, run  "
        hint += shell.command("resume", folder, "--trust")
        if name:  # it is not here
            place, hint = f"{name} was started with a different {request.source.path}", "Restore your recipe."
        raise UsageError(f"--resume auto: {place}.", hint)


def _fetch(request: Request, settled: Collection[str]) -> None:
    """Bring a run that was begun elsewhere, or went further there, into its folder, if this command began it."""
    from fastcls.runfolder import runs
    from fastcls.training import mirror

    out, address = request.out, request.options.checkpoints
    assert out is not None

    def accept(came: Path) -> None:
        _refuse_another(request, came, runs.read_json(came / "run.json"), settled, f"the run at {address}")

    try:
        with runs.locked(out):
            if number := mirror.fetch(address, out, accept):
                log.status(f"fetched checkpoint {number} from {address}")
    except FastclsError:
        with contextlib.suppress(OSError):  # it holds something
            out.rmdir()
        raise


def _remove(out: Path | None) -> None:
    """Remove a run folder; OutputError for a folder that is none."""
    from fastcls.runfolder import runs

    if out is None:
        raise UsageError("--overwrite: no run folder given.", "Add  --out DIR")
    if out.is_dir() and any(out.iterdir()):
        runs.remove(out)


def _train(request: Any, asked: int, auto_batch: bool) -> None:
    from fastcls.runfolder import runs

    if not ranks.first():
        from fastcls.running.assist import join_run

        join_run(request)
        return
    out = request.out or launched_folder() or runs.new_folder(request.source.name)
    runs.check_writable(out)  # before seconds of imports
    start(asked, out)
    log.status(f"{request.source.name}: loading torch and fastai …")
    from fastcls.machine.screen import Screen
    from fastcls.running.runner import run

    request = replace(request, out=out)
    folder = run(_settled(request) if auto_batch else request, Screen())
    if log.quiet():  # the one result of a training that a script needs
        print(visible(folder))


def _settled(request: Any) -> Any:
    """The request with the batch size that --auto-batch finds."""
    from fastcls.machine.screen import Screen
    from fastcls.running.loading import import_fastai

    import_fastai()
    from fastcls.running.auto_batch import settle

    return settle(request, Screen())


def _copy(source: RecipeSource, target: Path) -> None:
    from fastcls.runfolder.runs import atomic_write

    if target.is_dir():
        target /= f"{source.name}.py"
    if target.suffix != ".py":
        target = target.with_name(target.name + ".py")
    if target.exists():
        raise OutputError(f"--copy {target}: this file exists already.", "Choose a new file.")
    atomic_write(target, source.source)
    name = str(target) if target.is_absolute() else f"./{target}"
    print(f"{source.name} copied to {target}. Edit it, then:  {shell.command('recipe', name)}")


def _general_help(command: Any) -> str:
    return f"""Usage: fastcls recipe NAME [--knob VALUE …] [OPTIONS]

Train a recipe: data, network, training, report.

  fastcls recipes                          list the recipes
  fastcls recipe pets-resnet50 --help      show the knobs of a recipe
  fastcls recipe digits-cnn                train the smallest; nothing to download
  fastcls recipe folder --path photos      train on your own images
  fastcls recipe folder --copy mine.py     copy a recipe to edit it

{_run_help(command)}"""


def _run_help(command: Any) -> str:
    rows = []
    for one in command.params:
        if one.name in ("name", "help"):
            continue
        flags = "/".join([*one.opts, *one.secondary_opts])
        takes = "" if one.is_flag else f" {one.metavar}"
        text = getattr(one, "help", "") or ""
        if one.default not in (None, "", [], False) and not callable(one.default):
            text += f"  [default: {'yes' if one.default is True else one.default}]"
        rows.append((flags + takes, text))
    return "Options of every run:\n" + _definitions(rows)


def _help(source: RecipeSource, command: Any, name: str) -> str:
    fields = [("claim", source.claim)]
    fields += [(name.lower(), text) for name, text in source.fields.items() if name != "Claim"]
    parts = [f"Usage: {shell.command('recipe', name)} [--knob VALUE …] [OPTIONS]", source.title, _definitions(fields)]
    for stage, title in STAGE_TITLES.items():
        rows = [_knob_row(knob) for knob in source.stage(stage)]
        parts.append(f"{title}:\n" + (_definitions(rows) if rows else "  none"))
    parts.append(_run_help(command))
    return "\n\n".join(parts)


def _knob_row(knob: Knob) -> tuple[str, str]:
    from fastcls.settings.knobs import REQUIRED, as_text

    flag = f"{knob.flag}/--no-{knob.flag[2:]}" if knob.kind == "bool" else knob.flag
    choices = f" {'|'.join(map(str, knob.choices))}" if knob.choices else ""
    default = (
        "required" if knob.default is REQUIRED else f"default: {as_text(knob.default)}" if knob.default != "" else ""
    )
    auto = "auto: continue while it improves" if (knob.stage, knob.name) == ("fit", "epochs") else ""
    help = "; ".join(filter(None, [knob.help, auto]))
    return flag + choices, f"{help}  [{default}]".lstrip() if default else help


def _definitions(rows: list[tuple[str, str]], column: int = 26) -> str:
    import shutil
    import textwrap

    width = max(shutil.get_terminal_size((100, 24)).columns, 60)
    lines = []
    for term, text in rows:
        text = text.replace("[default: ", "[default:\u00a0")  # where no line ends
        wrapped = [part for line in text.splitlines() for part in textwrap.wrap(line, width - column - 2)] or [""]
        if len(term) > column - 2:
            lines.append(f"  {term}")
            term = ""
        lines.append(f"  {term:<{column}}{wrapped[0]}".rstrip())
        lines += [" " * (column + 2) + line for line in wrapped[1:]]
    return "\n".join(lines).replace("\u00a0", " ")
