"""One attempt of one job, in a process of its own: run it, then end it in one fenced transaction.

Knows no kind of job: the entry point passes them in. The process must have imported nothing big by the time it
calls `run`, so that the memory limit holds for all that the job needs.
"""

from __future__ import annotations

import os
import resource
import select
import shutil
import signal
import stat
import traceback
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from whiteroom.config import Settings
from whiteroom.jobs import queue
from whiteroom.jobs.kinds import PATIENCE_SECONDS, JobError, JobKind, Outcome, Work
from whiteroom.jobs.queue import RUNNING, Fenced, Job
from whiteroom.jobs.sweep import attempt_directory
from whiteroom.processes import end_with_parent, machine_memory
from whiteroom.store.database import Database

EXIT_FENCED = 75
EXIT_OUT_OF_MEMORY = 76


def run(
    job_id: int,
    attempt: int,
    database: Database,
    kinds: Mapping[str, JobKind],
    context: Any,
    settings: Settings,
) -> int:
    """Run the attempt and return the process's exit code: 0 once the job has ended, well or by a JobError.

    What `run` of the kind raises otherwise is raised on: the interpreter prints it to the attempt's log and the
    worker counts a crash.
    """
    _end_with_worker()
    memory_bytes = _limit_memory(settings)
    job = database.settle(lambda tx: queue.get(tx, job_id), patience_seconds=PATIENCE_SECONDS)
    if job is None or (job.status, job.attempt) != (RUNNING, attempt):
        return EXIT_FENCED
    kind = kinds[job.kind]
    directory = _empty(attempt_directory(settings.data_dir, job_id, attempt))
    try:
        ending = _done(job, kind.run(Work(job, directory, context, database, memory_bytes)))
        _flush(directory)
    except JobError as error:
        ending = _failed(job, kind, error)
    except Fenced:
        return EXIT_FENCED
    except MemoryError:
        traceback.print_exc()
        return EXIT_OUT_OF_MEMORY
    try:
        # A commit that went through though its answer was lost shows as Fenced: the job has ended.
        database.settle(lambda tx: ending(tx, datetime.now(UTC)), patience_seconds=PATIENCE_SECONDS)
    except Fenced:
        return EXIT_FENCED
    return 0


def _end_with_worker() -> None:
    end_with_parent(os.getppid(), signal.SIGKILL)
    # Of a worker that died before that line, the pipe that it held open as our standard input tells.
    if stat.S_ISFIFO(os.fstat(0).st_mode) and select.select([0], [], [], 0)[0]:
        os._exit(EXIT_FENCED)


def _limit_memory(settings: Settings) -> int:
    """Keep the process from taking more memory than it may; returns how much that is."""
    # When the machine itself runs out of memory, the kernel takes a job before the server.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
    size = settings.job_memory_bytes or machine_memory() * 4 // 5 // max(settings.workers, 1)
    # Arrow's own allocator takes address space by the gigabyte, which would count.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    # Not RLIMIT_AS: the files that a job maps are the system's to page out, and may be larger than its memory.
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    return size


def _empty(directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def _flush(directory: Path) -> None:
    """Have what the attempt wrote on the disk before the database says that it is there."""
    for path in (directory, *(p for p in directory.rglob("*") if p.is_file() or p.is_dir())):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def _done(job: Job, outcome: Outcome) -> Outcome:
    def end(tx: Connection, now: datetime) -> None:
        queue.finish(tx, job, now)
        outcome(tx, now)

    return end


def _failed(job: Job, kind: JobKind, error: JobError) -> Outcome:
    def end(tx: Connection, now: datetime) -> None:
        if not queue.fail(tx, job, str(error), now, even_cancelled=False):
            raise Fenced(f"job {job.id} is no longer at attempt {job.attempt}.")
        kind.failed(tx, job, error.failure, now)

    return end
