"""Settings in a file: a run's run.json, or YAML, TOML or JSON as `--print-config` prints it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastcls.errors import OutputError, UsageError
from fastcls.settings import shell
from fastcls.settings.knobs import as_text
from fastcls.settings.options import DECLARED

if TYPE_CHECKING:
    from fastcls.settings.request import Request

FLAG = "--config"
LONGEST = 1000  # values of a list
OF_THE_MACHINE = ("device", "workers")  # in a run.json: as that machine decided


def expanded(words: Sequence[str], flags: Collection[str]) -> list[str]:
    """The words, and before them the settings of --config FILE, if it is among them: what was typed wins.

    The recipe comes first. flags: of the verb; an option of runs that is none of them is left out.
    """
    rest = list(words)
    place = next((i for i, word in enumerate(rest) if word.partition("=")[0] == FLAG), None)
    if place is None:
        return rest
    _, equals, name = rest.pop(place).partition("=")
    if not equals:
        if place == len(rest):
            raise UsageError("--config: no file given.", "Pass a run's run.json or the output of --print-config.")
        name = rest.pop(place)
    settings = read(name)
    recipe = settings.pop("recipe", None)
    named = [rest.pop(0)] if rest and not rest[0].startswith("-") else [recipe] if isinstance(recipe, str) else []
    kept = {name: settings[name] for name in settings if name not in DECLARED or name.replace("_", "-") in flags}
    return [*named, *_words(kept), *rest]


def read(name: str) -> dict[str, Any]:
    """The settings of a file, by name; `recipe` among them, further keywords under `set`."""
    path = shell.path(name)
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".toml":
            import tomllib

            found: Any = tomllib.loads(text)
        elif path.suffix in (".yaml", ".yml"):
            import yaml

            found = yaml.safe_load(text)
        else:
            found = json.loads(text)
    except OSError as problem:
        raise OutputError(f"--config {name}: cannot be read: {problem.strerror}.") from None
    except Exception as problem:  # each parser has its own
        what = " ".join(str(problem).split())[:200]
        raise UsageError(f"--config {name}: {what}.", "It must be a .json, .yaml or .toml file.") from None
    try:
        held = _by_name(found, "the file")
        settings = of_a_run(held) if "knobs" in held else {str(key).replace("-", "_"): held[key] for key in held}
        further = settings["set"] = _by_name(settings.get("set"), "set")
        for key, value in [*settings.items(), *further.items()]:
            if value is not further:
                _check(key, value)
    except ValueError as problem:
        raise UsageError(f"--config {name}: {problem}.", "See  fastcls recipe NAME --print-config") from None
    return settings


def _by_name(value: Any, what: str) -> Mapping[str, Any]:
    """A mapping, or nothing; ValueError for anything else."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} contains {type(value).__name__} instead of settings by name")
    return value


def _check(key: str, value: Any) -> None:
    """ValueError for a value that is neither plain nor a list of plain ones."""
    several = value if isinstance(value, list | tuple) else [value]
    if len(several) > LONGEST or any(isinstance(one, list | tuple | Mapping) for one in several):
        raise ValueError(f"{key} is nested, or longer than {LONGEST:,} values")


def of_a_run(record: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run.json, by name: recipe, knobs, options, and further keywords under `set`.

    ValueError where it holds something else.
    """
    found: dict[str, Any] = {"recipe": record.get("recipe")}
    for stage, knobs in _by_name(record["knobs"], "knobs").items():
        found |= _by_name(knobs, stage)
    options = _by_name(record.get("options"), "options")
    found |= {name: options[name] for name in DECLARED if name in options and name not in OF_THE_MACHINE}
    if options.get("auto_epochs"):
        found["epochs"] = "auto"
    if seconds := options.get("seconds"):
        found["time"] = f"{seconds:g}s" if isinstance(seconds, int | float) else seconds
        found.pop("epochs", None)
    return found | {"set": _by_name(record.get("extra"), "extra")}


def _words(settings: Mapping[str, Any]) -> list[str]:
    words: list[str] = []
    for name, value in settings.items():
        flag = f"--{name.replace('_', '-')}"
        if name == "set":
            words += [word for key, given in value.items() for word in ("--set", f"{key}={given}")]
        elif isinstance(value, bool) and name in DECLARED:
            words.append(flag if value else f"--no-{flag[2:]}")
        elif value != "" and (value is not None or name not in DECLARED):  # an empty text is as if left out
            words.append(f"{flag}={as_text(value)}")
    return words


def printed(request: Request) -> str:
    """The settings of a request as YAML: all knobs and options."""
    import yaml

    recipe = request.source.name if request.source.shipped else str(request.source.path)
    settings: dict[str, Any] = {"recipe": recipe}
    for stage in ("get_learner", "fit"):
        settings |= {n: list(v) if isinstance(v, tuple) else v for n, v in request.stage(stage).items()}
    settings |= {name: getattr(request.options, name) for name in DECLARED}
    if request.extra:
        settings["set"] = dict(request.extra)
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
