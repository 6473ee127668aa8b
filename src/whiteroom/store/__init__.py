"""The database: one implementation for SQLite and PostgreSQL. Knows no HTTP, no room and no engine."""
