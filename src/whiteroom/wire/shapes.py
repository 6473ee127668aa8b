"""The walk over a shape of the service model: checks and converts values. Knows no bytes and no operations.

One walk serves both directions. Inward it checks every constraint that the model has. Outward it checks what
a client could not read (unknown or missing members, wrong types, values outside an enum) but no sizes, ranges
and patterns, for AWS's own answers are not held to them either: a relevance score may be negative.

Lengths of strings are counted in Unicode code points, as the Smithy specification of `@length` says.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from whiteroom.wire.model import Shape
from whiteroom.wire.patterns import matcher

MAX_PROBLEMS = 20
MAX_SHOWN = 64
MAX_DEPTH = 64
INTEGER_RANGE = {"integer": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
FLOAT_RANGE = (-sys.float_info.max, sys.float_info.max)


class TooManyProblems(Exception):
    """So many problems that further ones help nobody."""


At = str | tuple[Any, str | int]
"""Where a value stands: a name, or (where its parent stands, its name or its number in the list).

It is spelled out only for a problem: most values have none.
"""


class Problems(list[tuple[str, str]]):
    """What is wrong: (where, sentence)."""

    def add(self, at: At, constraint: str, value: Any = ...) -> None:
        """`value` is shown when it is given; leave out what is secret or large."""
        shown = "" if value is ... else f" {_shown(value)}"
        where = _spelled(at)
        self.append((where, f"Value{shown} at '{where}' failed to satisfy constraint: {constraint}"))
        if len(self) >= MAX_PROBLEMS:
            raise TooManyProblems


def _spelled(at: At) -> str:
    if isinstance(at, str):
        return at
    parent, name = _spelled(at[0]), f"{at[1]}.member" if isinstance(at[1], int) else at[1]
    return f"{parent}.{name}" if parent else name


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    text = value[: MAX_SHOWN + 1] if isinstance(value, str) else json.dumps(value)
    return f"'{text}'" if len(text) <= MAX_SHOWN else f"'{text[:MAX_SHOWN]}...'"


Walk = Callable[[Any, At, Problems], Any]
"""Takes a value, where it stands and the list of problems; returns the converted value."""


def compile_walk(shape: Shape, *, incoming: bool, secret: bool = False) -> Walk:
    """Compile the walk over a shape. A `secret` value is never shown."""
    secret = secret or bool(shape.metadata.get("sensitive"))
    if shape.metadata.get("document"):
        return _document
    return _COMPILERS[shape.type_name](shape, incoming, secret)


def _structure(shape: Shape, incoming: bool, secret: bool) -> Walk:
    members = {name: compile_walk(m, incoming=incoming, secret=secret) for name, m in shape.members.items()}
    required = tuple(shape.required_members)
    union = bool(shape.metadata.get("union"))
    one_of = f"Member must have exactly one of these members: {', '.join(members)}"

    def walk(value: Any, at: At, problems: Problems) -> Any:
        if type(value) is not dict:
            return problems.add(at, "Member must be an object")
        walked = {}
        for name, item in value.items():
            member = members.get(name)
            if member is None:
                problems.add((at, name[:MAX_SHOWN]), f"Member is not a member of {shape.name}")
            elif item is not None:
                walked[name] = member(item, (at, name), problems)
        for name in required:
            if name not in walked:
                problems.add((at, name), "Member must not be null", None)
        if union and len(walked) != 1:
            problems.add(at, one_of)
        return walked

    return walk


def _list(shape: Shape, incoming: bool, secret: bool) -> Walk:
    member = compile_walk(shape.member, incoming=incoming, secret=secret)
    check_size = _size_check(shape) if incoming else None

    def walk(value: Any, at: At, problems: Problems) -> Any:
        if type(value) is not list:
            return problems.add(at, "Member must be a list")
        if check_size and not check_size(len(value), at, problems):
            return None
        return [member(item, (at, i), problems) for i, item in enumerate(value, 1)]

    return walk


def _map(shape: Shape, incoming: bool, secret: bool) -> Walk:
    key = compile_walk(shape.key, incoming=incoming, secret=secret)
    member = compile_walk(shape.value, incoming=incoming, secret=secret)
    check_size = _size_check(shape) if incoming else None

    def walk(value: Any, at: At, problems: Problems) -> Any:
        if type(value) is not dict:
            return problems.add(at, "Member must be an object")
        if check_size and not check_size(len(value), at, problems):
            return None
        walked = {}
        for name, item in value.items():
            entry = at, f"{'*' if secret else name[:MAX_SHOWN]}.value"
            walked[key(name, (at, "key"), problems)] = member(item, entry, problems)
        return walked

    return walk


def _string(shape: Shape, incoming: bool, secret: bool) -> Walk:
    check_size = _size_check(shape) if incoming else None
    pattern = shape.metadata.get("pattern") if incoming else None
    allowed = frozenset(shape.enum)
    one_of = f"Member must satisfy enum value set: [{', '.join(shape.enum)}]"

    def walk(value: Any, at: At, problems: Problems) -> Any:
        if type(value) is not str:
            return problems.add(at, "Member must be a string")
        shown = ... if secret else value
        # The pattern comes only after the length, which keeps its time bounded.
        if check_size and not check_size(len(value), at, problems, shown):
            return None
        if pattern and not matcher(pattern)(value):
            problems.add(at, f"Member must satisfy regular expression pattern: {pattern}", shown)
        if allowed and value not in allowed:
            problems.add(at, one_of, shown)
        return value

    return walk


def _size_check(shape: Shape) -> Callable[..., bool] | None:
    """A check of how many characters, items or entries there are; None where the model sets no limit."""
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is None and most is None:
        return None

    def check(size: int, at: At, problems: Problems, shown: Any = ...) -> bool:
        if least is not None and size < least:
            problems.add(at, f"Member must have length greater than or equal to {least}", shown)
            return False
        if most is not None and size > most:
            problems.add(at, f"Member must have length less than or equal to {most}", shown)
            return False
        return True

    return check


def _number(shape: Shape, incoming: bool, secret: bool) -> Walk:
    whole = shape.type_name in INTEGER_RANGE
    least, most = INTEGER_RANGE.get(shape.type_name, FLOAT_RANGE)
    if incoming:
        least, most = shape.metadata.get("min", least), shape.metadata.get("max", most)
    accepted = (int,) if whole else (int, float)
    kind = "an integer" if whole else "a number"

    def walk(value: Any, at: At, problems: Problems) -> Any:
        shown = ... if secret or type(value) in (list, dict) else value
        if type(value) not in accepted:
            return problems.add(at, f"Member must be {kind}", shown)
        if value < least:
            problems.add(at, f"Member must have value greater than or equal to {least}", shown)
        elif not value <= most:  # which no NaN is
            problems.add(at, f"Member must have value less than or equal to {most}", shown)
        return value

    return walk


def _boolean(value: Any, at: At, problems: Problems) -> Any:
    return value if type(value) is bool else problems.add(at, "Member must be a boolean")


def _timestamp(shape: Shape, incoming: bool, secret: bool) -> Walk:
    iso = shape.serialization.get("timestampFormat") == "iso8601"
    wanted = "an ISO 8601 date and time with its offset" if iso else "a number of seconds since 1970"

    def read(value: Any, at: At, problems: Problems) -> Any:
        try:
            return _from_iso(value) if iso else _from_epoch(value)
        except (TypeError, ValueError, OverflowError, OSError):
            shown = value if type(value) in (str, int, float) and not secret else ...
            return problems.add(at, f"Member must be {wanted}", shown)

    def write(value: Any, at: At, problems: Problems) -> Any:
        if type(value) is not datetime or value.tzinfo is None:
            return problems.add(at, "Member must be an aware datetime")
        return _to_iso(value) if iso else value.timestamp()

    return read if incoming else write


@lru_cache(maxsize=4096)  # lists show the same times again and again
def _to_iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _from_iso(value: Any) -> datetime:
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("without an offset it is no moment")
    return moment.astimezone(UTC)


def _from_epoch(value: Any) -> datetime:
    if type(value) not in (int, float):
        raise TypeError("not a number")
    return datetime.fromtimestamp(value, UTC)


def _document(value: Any, at: At, problems: Problems, depth: int = 0) -> Any:
    """Any JSON, to a depth that no reader fails at."""
    if depth > MAX_DEPTH:
        return problems.add(at, f"Member must be nested at most {MAX_DEPTH} deep")
    if type(value) is dict:
        for item in value.values():
            _document(item, at, problems, depth + 1)
    elif type(value) is list:
        for item in value:
            _document(item, at, problems, depth + 1)
    elif type(value) is float and not math.isfinite(value):
        problems.add(at, "Member must be a finite number")
    elif type(value) not in (str, int, float, bool, type(None)):
        problems.add(at, "Member must be JSON")
    return value


_COMPILERS: Mapping[str, Callable[[Shape, bool, bool], Walk]] = {
    "structure": _structure,
    "list": _list,
    "map": _map,
    "string": _string,
    "integer": _number,
    "long": _number,
    "double": _number,
    "float": _number,
    "boolean": lambda *_: _boolean,
    "timestamp": _timestamp,
}
