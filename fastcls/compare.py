"""One recipe over many settings and seeds: the runs of a comparison, planned, then made; those done are kept.

Every run is an ordinary run folder, OUT/<what differs from the baseline>/seed-<n>/, so that a second call finds it.
"""

from __future__ import annotations

import ast
import gc
import hashlib
import itertools
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from fastcls import runs
from fastcls.comparison import HOME, Entry, as_text, read
from fastcls.errors import FastclsError, KnobError, OutputError, did_you_mean
from fastcls.knobs import Knob
from fastcls.options import Options
from fastcls.request import Request
from fastcls.screen import Screen, escape
from fastcls.sources import RecipeSource

PLAN = "compare.json"
BASELINE = "baseline"  # the folder of the setting that changes nothing
LONGEST = 100  # characters of a setting's folder name


@dataclass(frozen=True)
class Cell:
    """One run of a comparison: the value of every varied knob as text, and the knobs to give the recipe."""

    settings: dict[str, str]
    knobs: dict[str, Any]
    seed: int
    folder: Path


@dataclass(frozen=True)
class Plan:
    """A recipe, what all its runs have in common, and the runs; the first is the baseline's."""

    request: Request
    out: Path
    cells: list[Cell]

    @property
    def baseline(self) -> dict[str, str]:
        return self.cells[0].settings


def plan(
    request: Request, vary: Sequence[str], settings: Sequence[str], seeds: int, one_at_a_time: bool, out: Path | None
) -> Plan:
    """The runs of `--vary knob=a,b` over its grid, or `one_at_a_time` from the request's knobs, for `seeds` seeds.

    settings: further ones, each several knobs at once, 'norm=batch kernel=3'. The request's own knobs are the
    baseline, and are among the runs. Every wrong knob or value is named in a single KnobError.
    """
    knobs = {knob.name: knob for knob in request.source.knobs}
    problems: list[str] = []
    varied = _values(vary, knobs, problems)
    whole = [_setting(text, knobs, problems) for text in settings]
    if problems:
        flags = ", ".join(knob.flag[2:] for knob in knobs.values())
        raise KnobError("wrong settings:\n  " + "\n  ".join(problems), f"The knobs: {flags}")
    base = request.source.defaults() | dict(request.knobs)
    names = list(dict.fromkeys([*varied, *itertools.chain.from_iterable(whole)]))
    changes: list[dict[str, Any]] = [{}]
    if one_at_a_time:
        changes += [{name: value} for name, values in varied.items() for value in values]
    else:
        changes += [dict(zip(varied, values, strict=True)) for values in itertools.product(*varied.values())]
    changes += whole
    if varied and not one_at_a_time and not any(_same(base, change) for change in changes[1:]):
        del changes[0]  # a grid that leaves the defaults out: its first point is what the others are held against
    cells: dict[Path, Cell] = {}
    out = out or HOME / _slug([request.source.name, *_fixed(request)])
    for seed, change in itertools.product(range(request.options.seed, request.options.seed + seeds), changes):
        differing = {name: value for name, value in change.items() if value != base[name]}
        folder = out / (_slug([f"{k}={as_text(v)}" for k, v in differing.items()]) or BASELINE) / f"seed-{seed}"
        shown = {name: as_text((base | change)[name]) for name in names}
        cells.setdefault(folder, Cell(shown, {**request.knobs, **differing}, seed, folder))
    return Plan(request, out, list(cells.values()))


def run_all(plan: Plan, screen: Screen, after_each: Callable[[list[Entry]], object]) -> list[Entry]:
    """Make the runs that are not done; gives every run, those that failed with the reason.

    One that fails does not stop the others. `after_each` new one it is told of all that there are, so that tables can
    be kept up to date. A number format of 'auto' is decided by the first run for all: a comparison in two formats
    would be none.
    """
    from fastcls.checkpoints import Store
    from fastcls.runner import run

    _check_same(plan)
    entries = [read(cell.folder, cell.settings, cell.seed) for cell in plan.cells if is_done(cell.folder)]
    for number, cell in enumerate(plan.cells, 1):
        title = ", ".join([*(f"{name}={value}" for name, value in cell.settings.items()), f"seed {cell.seed}"])
        screen.print(f"\n[b]run {number} of {len(plan.cells)}[/b]  {escape(title)}", soft_wrap=True)
        if is_done(cell.folder):
            screen.print(f"done     {escape(cell.folder)}", soft_wrap=True)
            continue
        options = replace(plan.request.options, seed=cell.seed)
        if options.precision == "auto":
            options = replace(options, precision=_precision(plan))
        request = replace(plan.request, knobs=cell.knobs, options=options, out=cell.folder)
        try:
            if not _gone_on(cell.folder):
                shutil.rmtree(cell.folder, ignore_errors=True)  # a run that did not end, of this comparison's own
                run(replace(request, command=command(request)), Screen())
            shutil.rmtree(Store(cell.folder).home, ignore_errors=True)  # three times the weights, of every run
            entries.append(read(cell.folder, cell.settings, cell.seed))
        except FastclsError as problem:
            entries.append(Entry(cell.folder, cell.settings, cell.seed, failed=problem.message))
            screen.problem(problem)
        except Exception as problem:  # whatever one run dies of, the others have their turn
            entries.append(Entry(cell.folder, cell.settings, cell.seed, failed=f"{type(problem).__name__}: {problem}"))
            screen.print(f"failed   {type(problem).__name__}: {problem}", style="red", markup=False)
        gc.collect()
        after_each(entries)
    return entries


def _gone_on(folder: Path) -> bool:
    """Whether a run that was cut off could be brought to its end."""
    from fastcls.checkpoints import Store
    from fastcls.runner import resume

    if not (folder / "run.json").is_file() or not Store(folder).folders():
        return False
    try:
        resume(folder, Screen(), trust=True)  # the comparison's own, begun by this command
    except FastclsError:
        return False
    return True


def is_done(folder: Path) -> bool:
    """Whether a run folder holds a run that ended well."""
    return (folder / "metrics.json").is_file() and runs.read_json(folder / "run.json").get("status") == "done"


def command(request: Request) -> str:
    """The `fastcls recipe` command that makes a run of its own of this request."""
    name = request.source.name if request.source.shipped else str(request.source.path)
    words = ["fastcls", "recipe", name]
    for knob in request.source.knobs:
        if knob.name in request.knobs:
            words += [knob.flag, as_text(request.knobs[knob.name])]
    for key, value in request.extra.items():
        words += ["-o", f"{key}={value}"]
    return shlex.join([*words, *_option_words(request.options)])


def _option_words(options: Options) -> Iterator[str]:
    for field in fields(Options):
        value, flag = getattr(options, field.name), field.name.replace("_", "-")
        if field.name == "extra" or value == field.default:
            continue
        if isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        else:
            yield from (f"--{flag}", str(value))


def _values(vary: Sequence[str], knobs: Mapping[str, Knob], problems: list[str]) -> dict[str, list[Any]]:
    """--vary norm=none,batch: the parsed values of each knob. Lists, which hold commas, are parted by "/"."""
    varied: dict[str, list[Any]] = {}
    for text in vary:
        name, equals, rest = text.partition("=")
        knob = _knob(f"--vary {text}", name, equals, knobs, problems)
        if knob is None:
            continue
        for value in rest.split("/" if knob.kind == "list" else ","):
            parsed = _parse(f"--vary {text}", knob, value, problems)
            if parsed not in varied.setdefault(knob.name, []):
                varied[knob.name].append(parsed)
    return varied


def _setting(text: str, knobs: Mapping[str, Knob], problems: list[str]) -> dict[str, Any]:
    """--setting 'norm=batch kernel=3': several knobs that change together."""
    found: dict[str, Any] = {}
    for word in shlex.split(text):
        name, equals, value = word.partition("=")
        knob = _knob(f"--setting {word}", name, equals, knobs, problems)
        if knob is not None:
            found[knob.name] = _parse(f"--setting {word}", knob, value, problems)
    return found


def _knob(where: str, name: str, equals: str, knobs: Mapping[str, Knob], problems: list[str]) -> Knob | None:
    name = name.strip().removeprefix("--").replace("-", "_")
    if not equals:
        problems.append(f"{where}: this is no KNOB=VALUE")
    elif name not in knobs:
        problems.append(f"{where}: no such knob{did_you_mean(name, knobs)}")
    else:
        return knobs[name]
    return None


def _parse(where: str, knob: Knob, text: str, problems: list[str]) -> Any:
    try:
        return knob.parse(text)
    except ValueError:
        close = did_you_mean(text, map(str, knob.choices)) if knob.kind == "choice" else ""
        problems.append(f"{where}: {knob.name} takes {knob.allowed}, not {text!r}{close}")
        return None


def _same(base: Mapping[str, Any], change: Mapping[str, Any]) -> bool:
    return all(base[name] == value for name, value in change.items())


def _fixed(request: Request) -> list[str]:
    """What every run has that a plain `fastcls recipe` would not, the seed aside: it names the comparison."""
    defaults = request.source.defaults()
    given = {k: v for k, v in request.knobs.items() if k != "path" and v != defaults[k]}
    plain = {f.name for f in fields(Options)} - {"seed", "extra", "workers", "cache_gb"}
    given |= {
        k: getattr(request.options, k) for k in sorted(plain) if getattr(request.options, k) != getattr(Options(), k)
    }
    return [f"{name}={as_text(value)}" for name, value in {**given, **request.extra}.items()]


def _slug(words: Sequence[str]) -> str:
    """A folder name that says what it holds; what makes it long or cannot be in one becomes a checksum."""
    text = ",".join(words)
    name = re.sub(r"[^\w=.,+-]+", "-", text)
    if name == text and len(name) <= LONGEST:
        return name
    return f"{name[:LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _code(source: RecipeSource) -> str:
    """A checksum of a recipe's code, whatever its docstring and comments say: claims are written into those later."""
    tree = ast.parse(source.source)
    if ast.get_docstring(tree) is not None:
        del tree.body[0]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _check_same(plan: Plan) -> None:
    """Refuse to add to a folder whose runs had another recipe or other settings in common."""
    file = plan.out / PLAN
    source = plan.request.source
    this = {"format": runs.FORMAT, "recipe": source.name, "code": _code(source), "common": _fixed(plan.request)}
    this["path"] = str(plan.request.knobs.get("path", ""))
    if file.is_file():
        before = runs.read_json(file)
        if other := [key for key in ("recipe", "code", "common", "path") if before.get(key) != this[key]]:
            words = {
                "path": "other images",
                "recipe": "another recipe",
                "code": "other code of this recipe",
                "common": "other common settings",
            }
            raise OutputError(
                f"{plan.out} holds runs of {' and '.join(words[key] for key in other)}: they would not compare.",
                "Name another folder with --out, or remove that one.",
            )
    elif plan.out.is_dir() and any(plan.out.iterdir()):
        raise OutputError(f"--out {plan.out}: this folder is not empty and no comparison.", "Name a new folder.")
    runs.check_writable(plan.out / "new")
    runs.write_json(file, {**this, "varied": list(plan.baseline), "baseline": plan.baseline})


def _precision(plan: Plan) -> Any:
    """The number format of the first run that is done; 'auto' before."""
    done = next((cell.folder for cell in plan.cells if is_done(cell.folder)), None)
    return "auto" if done is None else runs.read_json(done / "run.json")["options"]["precision"]
