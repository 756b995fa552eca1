"""The arguments of a Python function, checked as knobs are: against its annotations, before it does anything."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from os import PathLike
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from fastcls.errors import UsageError, did_you_mean, of_system
from fastcls.settings.knobs import Knob, plain, refuse, shown

F = TypeVar("F", bound=Callable[..., Any])
KNOBS: dict[Any, str] = {bool: "bool", int: "int", float: "float", str: "str", PathLike: "str"}
LISTS = (list, Iterable, Sequence)


def checked(function: F) -> F:
    """The function, which takes what its annotations say; None is an argument that is not given.

    Text as one would type it, numbers of numpy's and paths are converted, iterables become lists. UsageError says what
    is missing or unknown, KnobError names every value that is not taken.
    """
    signature = inspect.signature(function)
    kinds = {name: _kind(parameter, function) for name, parameter in signature.parameters.items()}

    @functools.wraps(function)
    def call(*args: Any, **given: Any) -> Any:
        try:
            bound = signature.bind(*args, **given)
        except TypeError as problem:
            meant = "".join(did_you_mean(name, kinds) for name in given if name not in kinds)
            raise UsageError(f"{function.__name__}: {problem}{meant or '.'}") from None
        problems: list[str] = []
        for name, value in bound.arguments.items():
            flag, default = f"--{name.replace('_', '-')}", signature.parameters[name].default
            if value is None and default is inspect.Parameter.empty:
                problems.append(f"{flag}: required ({_words(name, kinds[name])})")
                continue
            try:
                bound.arguments[name] = default if value is None else _taken(name, value, kinds[name])
            except ValueError:
                problems.append(f"{flag} {shown(value)}: expected {_words(name, kinds[name])}")
        refuse(problems)
        try:
            return function(*bound.args, **bound.kwargs)
        except OSError as problem:
            raise of_system(problem) or problem from None

    return call  # type: ignore[return-value]


def _kind(parameter: inspect.Parameter, function: Callable[..., Any]) -> Any:
    """The type that an argument is of; Any where its annotation names what is imported for type checkers alone."""
    if parameter.annotation is parameter.empty or parameter.kind is parameter.VAR_KEYWORD:
        return Any
    try:
        kind = eval(parameter.annotation, function.__globals__)  # type: ignore[attr-defined]
    except NameError:
        return Any
    return list[kind] if parameter.kind is parameter.VAR_POSITIONAL else kind  # type: ignore[valid-type]


def _taken(name: str, given: Any, kind: Any) -> Any:
    """A value of this type; ValueError where what is given stands for none."""
    given, origin, of = plain(given), get_origin(kind) or kind, get_args(kind)
    if origin is Any:
        return given
    if origin in KNOBS:
        return Knob(name, "", KNOBS[origin], None).take(given)
    if origin is Literal and isinstance(given, str) and given in of:
        return given
    if origin in (Union, UnionType):
        for one in of:
            with suppress(ValueError):
                return _taken(name, given, one)
    elif origin is Callable and callable(given):
        return given
    elif origin is Mapping and isinstance(given, Mapping):
        return {_taken(name, key, of[0]): _taken(name, value, of[1]) for key, value in given.items()}
    elif origin in LISTS and isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping):
        return [_taken(name, one, of[0]) for one in given]
    elif inspect.isclass(origin) and not of and isinstance(given, origin):
        return given
    raise ValueError(given)


def _words(name: str, kind: Any) -> str:
    """What an argument of this type takes, for a person."""
    origin, of = get_origin(kind) or kind, get_args(kind)
    if origin in KNOBS:
        return "a path" if origin is PathLike else Knob(name, "", KNOBS[origin], None).allowed
    if origin is Literal:
        return ", ".join(map(str, of))
    if origin in (Union, UnionType):
        words = [_words(name, one) for one in of if one is not type(None)]
        return ", or ".join(text for text in words if text != "text" or "a path" not in words)
    return {Callable: "a function", Mapping: "a mapping"}.get(origin, "a list" if origin in LISTS else "a value")
