"""Durable work: a queue in the database, a worker that supervises, one child process a job. Knows no room."""
