"""Removes what no attempt that counts has left: directories of lost attempts and of deleted jobs, their logs.

An attempt that lost never comes to count again, so what is listed first and looked up afterwards can be removed
while jobs run.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from sqlalchemy import select

from whiteroom.jobs.queue import DONE, RUNNING
from whiteroom.store import schema
from whiteroom.store.database import Database

_BATCH = 500


def attempt_directory(data_dir: Path, job_id: int, attempt: int) -> Path:
    """The directory of one attempt's results."""
    return data_dir / "artifacts" / str(job_id) / str(attempt)


def log_file(data_dir: Path, job_id: int, attempt: int) -> Path:
    """What one attempt's process printed."""
    return data_dir / "logs" / "jobs" / f"{job_id}-{attempt}.log"


def sweep(database: Database, data_dir: Path) -> list[Path]:
    """Remove every attempt's directory but those of running jobs' and done jobs' last attempts, and deleted jobs'
    logs. Returns what was removed; what cannot be removed is left for the next time.
    """
    directories = [p for p in (data_dir / "artifacts").glob("*/*") if p.parent.name.isdecimal()]
    jobs = [p for p in (data_dir / "artifacts").glob("*") if p.name.isdecimal()]
    logs = [p for p in (data_dir / "logs" / "jobs").glob("*-*.log") if p.name.split("-")[0].isdecimal()]
    known = _known(database, {int(p.name) for p in jobs} | {int(p.name.split("-")[0]) for p in logs})
    live = {f"{job_id}/{attempt}" for job_id, (status, attempt) in known.items() if status in (RUNNING, DONE)}

    doomed = [p for p in directories if f"{p.parent.name}/{p.name}" not in live]
    doomed += [p for p in jobs if int(p.name) not in known]
    for path in doomed:
        shutil.rmtree(path, ignore_errors=True)
    orphaned = [p for p in logs if int(p.name.split("-")[0]) not in known]
    for path in orphaned:
        path.unlink(missing_ok=True)
    return [p for p in doomed + orphaned if not p.exists()]


def _known(database: Database, ids: set[int]) -> dict[int, tuple[str, int]]:
    columns = schema.job.c
    known: dict[int, tuple[str, int]] = {}
    ordered = sorted(ids)
    with database.read() as tx:
        for start in range(0, len(ordered), _BATCH):
            batch = select(columns.id, columns.status, columns.attempt).where(
                columns.id.in_(ordered[start : start + _BATCH])
            )
            known |= {row.id: (row.status, row.attempt) for row in tx.execute(batch)}
    return known
