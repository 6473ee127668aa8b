"""Generated pages say what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from scripts.generate_docs import PAGES
from whiteroom.rooms.status_codes import STATUS_CODES

ROOT = Path(__file__).parents[2]


def test_generated_pages_are_up_to_date() -> None:
    for name, render in PAGES.items():
        assert (ROOT / "docs" / name).read_text() == render(), f"docs/{name} is old: run `make docs`"


def test_every_status_code_in_the_code_is_published_and_every_published_one_is_used() -> None:
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    used = set(re.findall(r'(?:JobError|DataError|Failure)\(\s*"([A-Z_]+)"', source))
    assert used <= set(STATUS_CODES)
    unused = {code for code in STATUS_CODES if source.count(f'"{code}"') < 2}
    assert not unused
