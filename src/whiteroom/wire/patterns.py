"""The service models' regular expressions, made to mean in Python what they mean in Java. Knows nothing else.

A pattern must match the whole string. Three things differ between the engines:

- a class of surrogates (`\\uD800\\uDBFF-\\uDC00\\uDFFF`) stands for the characters beyond the BMP;
- `\\d`, `\\w` and `\\s` are ASCII;
- `\\p{L}` and its like do not exist in Python; the models use them only in `[...]+`.

Every pattern takes time at most quadratic in the string's length, which the model caps; the exceptions are
rewritten in `EQUIVALENT` (tests/wire/test_patterns.py tries hostile strings on all).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from unicodedata import category

SURROGATES = r"\uD800\uDBFF-\uDC00\uDFFF"
ASTRAL = r"\U00010000-\U0010FFFF"
CATEGORIES = re.compile(r"\[((?:\\p\{[A-Z][a-z]?\})+)([^\\\[\]]*)\]\+")
EQUIVALENT = {
    # As written it takes exponential time: ([x]+)*([x]+) is [x]+.
    "[a-zA-Z0-9_](([a-zA-Z0-9_]+)*([a-zA-Z0-9_]+))?": "[a-zA-Z0-9_]+",
}


@cache
def matcher(pattern: str) -> Callable[[str], object]:
    """A function that is true of the strings that the pattern matches from end to end."""
    classes = CATEGORIES.fullmatch(pattern)
    if classes:
        return _of_categories(tuple(re.findall(r"\w+(?=\})", classes[1])), classes[2])
    pattern = EQUIVALENT.get(pattern, pattern).replace(SURROGATES, ASTRAL)
    return re.compile(pattern, re.ASCII).fullmatch


def _of_categories(categories: tuple[str, ...], characters: str) -> Callable[[str], object]:
    def matches(text: str) -> bool:
        return bool(text) and all(category(c).startswith(categories) or c in characters for c in text)

    return matches
