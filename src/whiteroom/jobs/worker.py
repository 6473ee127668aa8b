"""The worker: claims jobs, runs each in a child process, keeps the leases and cleans up after the dead.

Imports nothing that a job needs, and calls no job's code but the short transactions `started` and `failed`.
A database that is away stops nothing but the claims: children run on, and what there is to say is said later.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection

from whiteroom.config import Settings
from whiteroom.jobs import queue
from whiteroom.jobs.child import EXIT_OUT_OF_MEMORY
from whiteroom.jobs.kinds import Failure, JobKind
from whiteroom.jobs.queue import RUNNING, Job
from whiteroom.jobs.sweep import log_file, sweep
from whiteroom.store.database import UNSETTLED, Database

CHILD_COMMAND = (sys.executable, "-m", "whiteroom", "run-job")
POLL_SECONDS = 0.05
ASK_SECONDS = 0.1
LOOK_SECONDS = 0.5
SWEEP_SECONDS = 30.0
LOG_BYTES = 1 << 20
LONGEST_BACK_OFF = timedelta(minutes=5)

log = logging.getLogger(__name__)

CANCELLED = Failure("CANCELLED", "The job was cancelled.")
OUT_OF_MEMORY = Failure(
    "OUT_OF_MEMORY", "The job needed more memory than there is. Use less data, or ask the operator for more memory."
)


@dataclass
class _Child:
    job: Job
    process: subprocess.Popen[bytes]
    log: Path
    renew_at: float
    kill_at: float | None = None

    def terminate(self, grace_seconds: float) -> None:
        if self.kill_at is None:
            self.kill_at = time.monotonic() + grace_seconds
            self.signal(signal.SIGTERM)

    def signal(self, number: int) -> None:
        if not self.ended():
            os.killpg(self.process.pid, number)

    def ended(self) -> bool:
        """Whether the process has ended; what it had started itself is killed then."""
        if self.process.returncode is None:
            # Not reaped yet, so that the group's number is still this job's.
            if os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return False
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        return True


class Worker:
    """Runs up to `settings.workers` jobs at a time.

    Parameters
    ----------
    child_command : what starts a job's process; its id and the attempt are appended. It must call `child.run`
        with the same kinds, and finds the settings in its environment.
    grace_seconds : between SIGTERM and SIGKILL for a job that is cancelled or given back.
    back_off_seconds : wait before a job that crashed is tried again, doubled with each further crash.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        kinds: Mapping[str, JobKind],
        child_command: Sequence[str],
        *,
        grace_seconds: float = 5.0,
        back_off_seconds: float = 1.0,
    ) -> None:
        self._settings = settings
        self._database = database
        self._kinds = kinds
        self._command = child_command
        self._grace_seconds = grace_seconds
        self._back_off = timedelta(seconds=back_off_seconds)
        self._name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._children: list[_Child] = []
        self._due: dict[Callable[[], None], float] = {}
        self._pulse: tuple[int, int] | None = None
        self._asked_at = 0.0
        self._in_trouble = False
        self._stopping = False

    def stop(self) -> None:
        """Make `run` end; may be called by a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Work until `stop`, then end the children and give their jobs back. Call it in the main thread only:
        the children die with the thread that starts them.
        """
        while not self._stopping:
            pause = POLL_SECONDS if self._guarded(self._tick) else LOOK_SECONDS
            time.sleep(pause)
        for child in self._children:
            child.terminate(self._grace_seconds)
        deadline = time.monotonic() + self._grace_seconds + 5
        while self._children and time.monotonic() < deadline:
            self._guarded(self._reap)
            time.sleep(POLL_SECONDS)

    def _guarded(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except Exception as error:
            if not self._in_trouble:
                log.warning("worker %s: %s; trying again", self._name, error, exc_info=error)
            self._in_trouble = True
            # Other workers could not renew either: give them time before their leases count as lapsed.
            self._due[self._recover] = time.monotonic() + self._settings.lease_seconds
            return False
        self._in_trouble = False
        return True

    def _tick(self) -> None:
        self._reap()
        self._renew()
        self._every(LOOK_SECONDS, self._look)
        self._every(self._settings.lease_seconds / 4, self._recover)
        self._every(SWEEP_SECONDS, self._sweep)
        self._claim()

    def _every(self, seconds: float, step: Callable[[], None]) -> None:
        if time.monotonic() >= self._due.get(step, 0.0):
            step()
            self._due[step] = time.monotonic() + seconds

    def _reap(self) -> None:
        for child in list(self._children):
            if child.kill_at is not None and time.monotonic() > child.kill_at:
                child.signal(signal.SIGKILL)
        for child in list(self._children):
            if child.ended():
                self._settle(child)
                self._children.remove(child)
                if child.process.stdin:
                    child.process.stdin.close()
                self._due[self._sweep] = min(self._due.get(self._sweep, 0.0), time.monotonic() + 1)

    def _settle(self, child: _Child) -> None:
        """Say what became of an attempt whose process has ended without ending the job."""
        with self._database.read() as tx:
            if not _is_live(queue.get(tx, child.job.id), child.job):
                return
        code = child.process.returncode
        failure = self._failure(child.job, code)
        reason = f"the job's process ended with {code}.\n{_tail(child.log)}"
        with self._database.write() as tx:
            job = queue.get(tx, child.job.id)
            if job is None or not _is_live(job, child.job):
                return
            if child.kill_at is not None and not job.cancel_requested:
                queue.give_back(tx, job, run_after=datetime.now(UTC), crashed=False)
            else:
                self._crashed(tx, job, reason, failure)

    def _crashed(self, tx: Connection, job: Job, reason: str, failure: Failure) -> None:
        now = datetime.now(UTC)
        if job.cancel_requested or job.crashes + 1 >= job.max_attempts:
            self._fail(tx, job, reason, CANCELLED if job.cancel_requested else failure, now)
            return
        wait = min(self._back_off * 2 ** min(job.crashes, 20), LONGEST_BACK_OFF)
        queue.give_back(tx, job, run_after=now + wait, crashed=True, error=reason)

    def _fail(self, tx: Connection, job: Job, reason: str, failure: Failure, now: datetime) -> None:
        if not queue.fail(tx, job, reason, now):
            return
        try:
            with tx.begin_nested():
                self._kinds[job.kind].failed(tx, job, failure, now)
        except UNSETTLED:
            raise
        except Exception:
            log.exception("job %s of %s has failed, which could not be shown", job.id, job.resource_arn)

    @staticmethod
    def _failure(job: Job, code: int) -> Failure:
        if code in (-signal.SIGKILL, EXIT_OUT_OF_MEMORY):
            return OUT_OF_MEMORY
        tries = f"{job.crashes + 1} times" if job.crashes else "once"
        return Failure(
            "INTERNAL_ERROR",
            f"The job ended unexpectedly {tries}. The operator finds the reason in the log of job {job.id}.",
        )

    def _renew(self) -> None:
        lease = self._settings.lease_seconds
        due = [c for c in self._children if time.monotonic() >= c.renew_at and c.kill_at is None]
        if not due:
            return
        with self._database.write() as tx:
            now = datetime.now(UTC)
            lost = [child for child in due if not queue.renew(tx, child.job, now, lease)]
        for child in due:
            child.renew_at = time.monotonic() + lease / 3
        for child in lost:
            child.terminate(self._grace_seconds)

    def _look(self) -> None:
        if not self._children:
            return
        with self._database.read() as tx:
            live = queue.live(tx, [child.job for child in self._children])
        for child in self._children:
            if child.job.id not in live and not child.ended():
                child.terminate(self._grace_seconds)
            _bound(child.log)

    def _recover(self) -> None:
        with self._database.read() as tx:
            if not queue.any_abandoned(tx, self._kinds, datetime.now(UTC)):
                return
        ours = {(child.job.id, child.job.attempt) for child in self._children}
        with self._database.write() as tx:
            for job in queue.abandoned(tx, self._kinds, datetime.now(UTC)):
                if (job.id, job.attempt) not in ours:
                    reason = f"worker {job.worker} has not been heard of since {job.lease_until}."
                    self._crashed(tx, job, reason, self._failure(job, 1))

    def _sweep(self) -> None:
        sweep(self._database, self._settings.data_dir)

    def _claim(self) -> None:
        while len(self._children) < self._settings.workers and self._may_be_ready():
            with self._database.read() as tx:
                if not queue.ready(tx, self._kinds, datetime.now(UTC)):
                    return
            with self._database.write() as tx:
                now = datetime.now(UTC)
                job = queue.claim(tx, self._name, self._kinds, now, self._settings.lease_seconds)
                if job is None:
                    return
                started = self._started(tx, job, now)
            self._asked_at = 0.0  # where there was one there may be more
            if started:
                self._spawn(job)

    def _may_be_ready(self) -> bool:
        """False while it would be too early to ask again, for all that can be known without a query."""
        pulse, now = self._database.pulse(), time.monotonic()
        if pulse == self._pulse and now < self._asked_at + (ASK_SECONDS if pulse is None else LOOK_SECONDS):
            return False
        self._pulse, self._asked_at = pulse, now
        return True

    def _started(self, tx: Connection, job: Job, now: datetime) -> bool:
        try:
            with tx.begin_nested():
                self._kinds[job.kind].started(tx, job, now)
        except UNSETTLED:
            raise
        except Exception:
            log.exception("job %s of %s cannot start", job.id, job.resource_arn)
            self._crashed(tx, job, traceback.format_exc(), self._failure(job, 1))
            return False
        return True

    def _spawn(self, job: Job) -> None:
        path = log_file(self._settings.data_dir, job.id, job.attempt)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as output:
                process = subprocess.Popen(
                    [*self._command, str(job.id), str(job.attempt)],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=os.environ | self._settings.to_environment(),
                    start_new_session=True,
                )
        except OSError as error:
            log.exception("job %s of %s cannot start", job.id, job.resource_arn)
            with self._database.write() as tx:
                self._crashed(tx, job, str(error), self._failure(job, 1))
            return
        renew_at = time.monotonic() + self._settings.lease_seconds / 3
        self._children.append(_Child(job, process, path, renew_at))


def run(settings: Settings, database: Database, kinds: Mapping[str, JobKind]) -> None:
    """Run a worker in this process's main thread until SIGTERM or SIGINT."""
    worker = Worker(settings, database, kinds, CHILD_COMMAND)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    worker.run()


def _is_live(current: Job | None, ours: Job) -> bool:
    return current is not None and (current.status, current.attempt) == (RUNNING, ours.attempt)


def _tail(path: Path, size: int = 4000) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read().decode(errors="replace")
    except OSError as error:
        return f"(no log: {error})"


def _bound(path: Path) -> None:
    # The child appends, so it goes on writing after the part that stays.
    with suppress(OSError):
        if path.stat().st_size > LOG_BYTES:
            path.write_bytes(b"[what was printed before is not kept]\n" + path.read_bytes()[-LOG_BYTES // 2 :])
