"""The models' regular expressions mean here what they mean to AWS, and no string makes them slow."""

import time

import pytest

from whiteroom.wire.patterns import EQUIVALENT, matcher
from whiteroom.wire.spec import SERVICES, model

STRINGS = [
    shapes.shape(name)
    for shapes in map(model, SERVICES)
    for name in shapes.shapes
    if shapes.shape(name).metadata.get("pattern")
]
PATTERNS = sorted({(s.metadata["pattern"], s.metadata.get("max", 100_000)) for s in STRINGS})
NAME = next(s.metadata["pattern"] for s in STRINGS if s.name == "NameString")
DESCRIPTION = next(s.metadata["pattern"] for s in STRINGS if s.name == "ResourceDescription")
OBJECT = next(s.metadata["pattern"] for s in STRINGS if s.name == "DatabricksObject")
HOSTILE = ["a", "0", " ", "-", "a-", "a ", "a.", "0.", "-a", "/", "\U0001f3e0", "é", "\t"]
ARN = "arn:aws:cleanrooms-ml:us-east-1:111122223333:training-dataset/"


@pytest.mark.parametrize("name", ["a", "a b", "\U0001f3e0" * 63, "\ud7ff\ue000\ufffd", "日本", " a", "\ta", "\u2028"])
def test_names_take_nearly_all_of_unicode(name):
    assert matcher(NAME)(name)


@pytest.mark.parametrize("name", ["", " ", "\t \t", "a\n", "a\nb", "\x00", "\x1f", "\ufffe", "a\r"])
def test_names_take_no_blanks_alone_and_no_control_characters(name):
    assert not matcher(NAME)(name)


def test_descriptions_take_line_ends():
    assert matcher(DESCRIPTION)("one\r\ntwo\n")


def test_patterns_must_match_to_the_very_end():
    assert matcher("[0-9]{12}")("1" * 12)
    assert not matcher("[0-9]{12}")("1" * 12 + "\n")


def test_digits_and_word_characters_are_ascii():
    assert not matcher(r"\d+")("٣")
    assert not matcher(r"[\w]{2}")("éé")


def test_unicode_categories_are_known():
    assert matcher(OBJECT)("table_été-१٣‿")
    assert not matcher(OBJECT)("a b")
    assert not matcher(OBJECT)("")


def test_every_rewritten_pattern_is_still_in_the_models():
    assert set(EQUIVALENT) <= {pattern for pattern, _ in PATTERNS}


@pytest.mark.parametrize(("pattern", "most"), PATTERNS)
def test_no_string_makes_a_pattern_slow(pattern, most):
    matches = matcher(pattern)
    started = time.process_time()
    for part in HOSTILE:
        for start in ("", "a", ARN, "s3://", "https://"):
            matches((start + part * most)[: most - 1] + "\x00")
    assert time.process_time() - started < 2
