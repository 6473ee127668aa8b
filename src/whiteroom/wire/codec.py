"""Requests in, answers out, as the service model says. Knows no HTTP and no operation by name.

`parse` accepts what the model allows and nothing else, and reports all that is wrong with a request at once,
in AWS's words. `dump` refuses what the model does not know: that is a mistake of ours, never the caller's.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import unquote

import orjson

from whiteroom.wire import errors
from whiteroom.wire.model import Shape
from whiteroom.wire.shapes import MAX_SHOWN, Problems, TooManyProblems, Walk, compile_walk
from whiteroom.wire.spec import ErrorModel, Operation

MAX_DIGITS = 400
"""Digits of an integer in a body; the largest double has 309."""


class OutputError(TypeError):
    """A handler returned what the operation's model does not allow."""


def parse(operation: Operation, labels: Mapping[str, str], query: str, body: bytes) -> dict[str, Any]:
    """Read a request.

    Parameters
    ----------
    labels : the path's labels by name, percent-encoded.
    query : the query string, percent-encoded.
    body : JSON in UTF-8; empty means `{}`.

    Returns the input members by their names in the model; timestamps as aware datetimes in UTC.
    Raises ApiError ValidationException with everything that is wrong.
    """
    plan = _input(operation)
    problems = Problems()
    values = _json(body)
    with contextlib.suppress(TooManyProblems):
        for name in plan.located & values.keys():
            problems.add(name, "Member is not a member of the body")
        for name, label in labels.items():
            values[name] = _percent_decoded(label, f"The path's {name}")
        _add_query(plan, values, query, problems)
        values = plan.walk(values, "", problems)
    if problems:
        raise _refusal(operation, problems)
    return values


def dump(operation: Operation, output: Mapping[str, Any] | None) -> bytes:
    """Write an answer's body. Raises OutputError where the model does not know what it holds."""
    if operation.output is None or operation.status == 204:
        if output:
            raise OutputError(f"{operation.name} answers nothing, not {sorted(output)}")
        return b"" if operation.status == 204 else b"{}"
    return _dump(operation.output, dict(output or {}))


def dump_error(model: ErrorModel, error: errors.ApiError) -> bytes:
    """Write the body of a modelled error."""
    return _dump(model.shape, {"message": error.message, **error.members})


@dataclass(frozen=True)
class _Input:
    """How to read one operation's input."""

    walk: Walk
    located: frozenset[str]
    """Members that are in the path or the query."""
    query: Mapping[str, tuple[str, str]]
    """Member and type by the name of the query parameter."""


@cache
def _input(operation: Operation) -> _Input:
    members = operation.input.members
    places = {name: shape.serialization.get("location") for name, shape in members.items()}
    return _Input(
        walk=compile_walk(operation.input, incoming=True),
        located=frozenset(name for name, place in places.items() if place),
        query={
            members[name].serialization["name"]: (name, members[name].type_name)
            for name, place in places.items()
            if place == "querystring"
        },
    )


@cache
def _output(shape: Shape) -> Walk:
    return compile_walk(shape, incoming=False)


def _dump(shape: Shape, value: dict[str, Any]) -> bytes:
    problems = Problems()
    with contextlib.suppress(TooManyProblems):
        value = _output(shape)(value, "", problems)
    if problems:
        raise OutputError(f"{shape.name}: " + "; ".join(sentence for _, sentence in problems))
    return orjson.dumps(value)


def _refusal(operation: Operation, problems: Problems) -> errors.ApiError:
    count = f"{len(problems)} validation error{'s' if len(problems) > 1 else ''} detected"
    message = f"{count}: {'; '.join(sentence for _, sentence in problems)}"
    refusal = errors.validation(message)
    if "fieldList" in operation.errors.by_name[refusal.name].shape.members:
        refusal.members["reason"] = "FIELD_VALIDATION_FAILED"
        refusal.members["fieldList"] = [{"name": at, "message": sentence} for at, sentence in problems]
    return refusal


def _json(body: bytes) -> dict[str, Any]:
    """Read a JSON object, refusing what JSON readers disagree about."""
    if not body:
        return {}
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_without_doubles,
            parse_constant=_no_constant,
            parse_int=_integer,
        )
        if b"\\u" in body:
            json.dumps(value, ensure_ascii=False).encode()  # finds halves of surrogate pairs
    except UnicodeError:
        raise errors.validation("The request body holds text that is not valid Unicode in UTF-8.") from None
    except RecursionError:
        raise errors.validation("The request body is nested too deeply.") from None
    except ValueError as error:
        raise errors.validation(f"The request body is not valid JSON: {error}.") from None
    if type(value) is not dict:
        raise errors.validation("The request body must be a JSON object.")
    return value


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("an object names a member twice")
    return members


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"an integer has more than {MAX_DIGITS} digits")
    return int(digits)


def _percent_decoded(text: str, what: str) -> str:
    try:
        if re.search(r"%(?![0-9A-Fa-f]{2})", text):
            raise ValueError
        return unquote(text, encoding="utf-8", errors="strict")
    except ValueError:
        raise errors.validation(f"{what} is not percent-encoded UTF-8.") from None


def _add_query(plan: _Input, values: dict[str, Any], query: str, problems: Problems) -> None:
    for pair in query.split("&") if query else ():
        key, _, text = (_percent_decoded(part, "The query string") for part in pair.partition("="))
        name, kind = plan.query.get(key, (None, ""))
        if name is None:
            problems.add(key[:MAX_SHOWN], "Member is not a query parameter of this operation")
        elif kind == "list":
            values.setdefault(name, []).append(text)
        elif name in values:
            problems.add(name, "Member must not be sent twice")
        else:
            values[name] = int(text) if kind == "integer" and re.fullmatch("-?[0-9]{1,18}", text) else text
