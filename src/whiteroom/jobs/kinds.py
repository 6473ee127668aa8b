"""What a kind of job is: three functions that a room writes and the queue's processes call. Imports no engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from whiteroom.jobs import queue
from whiteroom.jobs.queue import Job
from whiteroom.store.database import UNSETTLED, Database

PATIENCE_SECONDS = 60.0
"""How long a job or its supervisor waits for a database that is away before it gives up what it wanted to say."""
_PROGRESS_SECONDS = 0.5


@dataclass(frozen=True)
class Failure:
    """Why a job failed for good: a stable code and a sentence, both shown to the resource's owner."""

    status_code: str
    message: str


class JobError(Exception):
    """The user has to change something: the job fails at once and is not tried again."""

    def __init__(self, status_code: str, message: str) -> None:
        super().__init__(f"{status_code}: {message}")
        self.failure = Failure(status_code, message)


Outcome = Callable[[Connection, datetime], None]
"""Makes a job's result visible, inside the transaction that ends the job. May be applied again after a roll-back."""


@dataclass(frozen=True)
class Work:
    """What a job's `run` is given, in its own process.

    `directory` is this attempt's own and empty. It stays when the attempt is the one that ends the job, for as
    long as the job's row is there, and is removed otherwise. `context` is what the process's entry point built.
    Beyond `memory_bytes` of its own memory (files that it maps do not count) the process gets a MemoryError.
    """

    job: Job
    directory: Path
    context: Any
    database: Database
    memory_bytes: int
    _said: dict[str, float] = field(default_factory=dict, init=False, repr=False)

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Keep JSON that the next attempt finds in `job.checkpoint`, should this one die. Raises Fenced."""
        self.database.settle(lambda tx: queue.report(tx, self.job, checkpoint=state), patience_seconds=PATIENCE_SECONDS)

    def progress(self, fraction: float, text: str) -> None:
        """Say how far the job is (0 to 1) and what it does; call it as often as you like. Raises Fenced."""
        if time.monotonic() - self._said.get("at", -_PROGRESS_SECONDS) < _PROGRESS_SECONDS:
            return
        self._said["at"] = time.monotonic()
        try:
            with self.database.write() as tx:
                queue.report(tx, self.job, progress=fraction, progress_text=text)
        except UNSETTLED:
            pass  # a database that is away for a moment is no reason to lose the work


@dataclass(frozen=True)
class JobKind:
    """One kind of job.

    started : in the claim's transaction, in the worker; again at each further attempt.
    run : in the child process, in no transaction; the outcome it returns is applied in the one that ends the job.
    failed : in the transaction that ends the job without a result, in the worker or the child.
    """

    name: str
    started: Callable[[Connection, Job, datetime], None]
    run: Callable[[Work], Outcome]
    failed: Callable[[Connection, Job, Failure, datetime], None]
