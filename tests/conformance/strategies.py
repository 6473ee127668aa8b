"""Hypothesis strategies built from the service models: valid values for any shape."""

from __future__ import annotations

import re
import string
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from whiteroom.wire.model import Shape

SOME = 3
"""How many items, entries or characters a value has beyond the least that is allowed."""

NAME_CLASS = r"[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDBFF-\uDC00\uDFFF\t"
LABEL_OF_A_BUCKET = r".*(?!^(\d+\.)+\d+$)"
TIMES = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
DOCUMENTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=SOME) | st.dictionaries(st.text(), inner, max_size=SOME),
    max_leaves=5,
)


def valid(shape: Shape) -> st.SearchStrategy[Any]:
    """Values that the model allows, as boto3 takes and gives them."""
    if shape.metadata.get("document"):
        return DOCUMENTS
    return _BY_TYPE[shape.type_name](shape)


def _structure(shape: Shape) -> st.SearchStrategy[dict[str, Any]]:
    if shape.metadata.get("union"):
        return st.one_of([st.fixed_dictionaries({name: valid(m)}) for name, m in shape.members.items()])
    members = {name: valid(m) for name, m in shape.members.items()}
    required = {name: members.pop(name) for name in shape.required_members}
    return st.fixed_dictionaries(required, optional=members)


def _sizes(shape: Shape) -> tuple[int, int]:
    least = shape.metadata.get("min", 0)
    return least, min(shape.metadata.get("max", least + SOME), least + SOME)


def _list(shape: Shape) -> st.SearchStrategy[list[Any]]:
    least, most = _sizes(shape)
    if shape.serialization.get("location") == "querystring":
        least = max(least, 1)  # an empty list leaves no trace in a query string
    return st.lists(valid(shape.member), min_size=least, max_size=most)


def _map(shape: Shape) -> st.SearchStrategy[dict[str, Any]]:
    least, most = _sizes(shape)
    return st.dictionaries(valid(shape.key), valid(shape.value), min_size=least, max_size=most)


def _string(shape: Shape) -> st.SearchStrategy[str]:
    if shape.enum:
        return st.sampled_from(shape.enum)
    least, most = shape.metadata.get("min", 0), shape.metadata.get("max", 2**20)
    few = min(most, least + 12)
    pattern = shape.metadata.get("pattern")
    if pattern is None or pattern == r"[\S\s]*":
        return st.text(min_size=least, max_size=few)
    if pattern in (".*", ".+"):
        return st.text(st.characters(exclude_characters="\n", codec="utf-8"), min_size=least, max_size=few)
    if NAME_CLASS in pattern:
        line_ends = "\r\n" if r"\r\n" in pattern else ""
        allowed = st.characters(min_codepoint=0x20, exclude_categories=["Cs"], exclude_characters="\ufffe\uffff")
        text = st.text(allowed | st.sampled_from("\t\U0001f3e0" + line_ends), min_size=least, max_size=few)
        return text.filter(lambda t: re.sub(r"\s", "", t, flags=re.ASCII) != "") if "(?!" in pattern else text
    if r"\p{" in pattern:
        categories = re.findall(r"\\p\{(\w+)\}", pattern)
        return st.text(st.characters(categories=categories), min_size=least, max_size=few)
    if pattern == "[0-9a-f]+":
        return st.text(string.hexdigits[:16], min_size=least, max_size=few)
    if pattern.startswith(LABEL_OF_A_BUCKET):
        return st.from_regex(r"[a-z0-9][a-z0-9-]{1,20}[a-z0-9](\.[a-z]{2,9})?", fullmatch=True)
    anchored = re.compile(f"(?:{pattern.replace('$|^', '|')})", re.ASCII)
    return st.from_regex(anchored, fullmatch=True).filter(lambda t: least <= len(t) <= most)


def _whole(shape: Shape) -> st.SearchStrategy[int]:
    bits = 31 if shape.type_name == "integer" else 63
    return st.integers(shape.metadata.get("min", -(2**bits)), shape.metadata.get("max", 2**bits - 1))


def _float(shape: Shape) -> st.SearchStrategy[float]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    return st.floats(least, most, allow_nan=False, allow_infinity=False)


_BY_TYPE = {
    "structure": _structure,
    "list": _list,
    "map": _map,
    "string": _string,
    "integer": _whole,
    "long": _whole,
    "double": _float,
    "float": _float,
    "boolean": lambda shape: st.booleans(),
    "timestamp": lambda shape: TIMES,
}
