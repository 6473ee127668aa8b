"""Generated pages say what the code says."""

from __future__ import annotations

from pathlib import Path

from scripts.generate_docs import PAGES

ROOT = Path(__file__).parents[2]


def test_generated_pages_are_up_to_date() -> None:
    for name, render in PAGES.items():
        assert (ROOT / "docs" / name).read_text() == render(), f"docs/{name} is old: run `make docs`"
