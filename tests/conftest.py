"""Fixtures that every test may use."""

from tests.databases import database, database_url, postgresql  # noqa: F401
