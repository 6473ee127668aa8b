"""Real workers and real jobs for the tests: `python -m tests.jobs.rig worker` and `... job ID ATTEMPT`.

The jobs do what their payload says. Each ending, good or bad, writes a row into the table `effect` inside the
transaction that ends the job, so that a doubled or a lost ending shows.
"""

import os
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import text

from whiteroom.jobs.kinds import JobError, JobKind
from whiteroom.store import resources
from whiteroom.store.resources import Scope

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "tests.jobs.rig")
EVERYBODY = Scope.service(why="the test's jobs move their own resources")


def move(tx, job, now, **facts):
    resource = resources.load(tx, EVERYBODY, "model", job.resource_arn)
    return resources.update(tx, resource, now=now, **facts)


def effect(tx, job, what):
    row = {"job": job.id, "attempt": job.attempt, "what": what}
    tx.execute(text("INSERT INTO effect (job, attempt, what) VALUES (:job, :attempt, :what)"), row)


def started(tx, job, now):
    if job.payload.get("cannot_start"):
        raise RuntimeError("the start is broken")
    move(tx, job, now, status="CREATE_IN_PROGRESS")


def failed(tx, job, failure, now):
    if job.payload.get("cannot_fail"):
        raise RuntimeError("the failure is broken")
    effect(tx, job, failure.status_code)
    move(tx, job, now, status="CREATE_FAILED", body={"code": failure.status_code, "message": failure.message})


def run(work):
    payload = work.job.payload
    (work.directory / "result").write_text(f"attempt {work.job.attempt}")
    act = payload.get("act", "work")
    facts = globals()[f"act_{act}"](work, **payload.get("with", {})) or {}

    def apply(tx, now):
        effect(tx, work.job, "ACTIVE")
        move(tx, work.job, now, status="ACTIVE", body=facts, private={"attempt": work.job.attempt})

    return apply


def act_work(work, steps=1, seconds=0.0):
    """Steps that a later attempt takes up where the last one was cut off."""
    done = (work.job.checkpoint or {"done": []})["done"]
    for step in range(len(done), steps):
        time.sleep(seconds / steps)
        done = [*done, step]
        work.checkpoint({"done": done})
        work.progress((step + 1) / steps, f"step {step}")
    return {"done": done}


def act_hold(work, release):
    """Run until a file is there, deaf to SIGTERM, blind to a directory that was swept away: only the fence stops it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (work.directory / "pid").write_text(str(os.getpid()))
    while not Path(release).exists():
        time.sleep(0.02)
    work.directory.mkdir(parents=True, exist_ok=True)


def act_user_error(work):
    raise JobError("INVALID_SEED_DATA", "The seed has no ids.")


def act_raise(work, until=10**9):
    if work.job.attempt < until:
        raise RuntimeError("a bug at attempt " + str(work.job.attempt))


def act_leave(work, code):
    os._exit(code)


def act_kill_itself(work):
    os.kill(os.getpid(), signal.SIGKILL)


def act_eat(work):
    hoard = []
    while True:
        hoard.append(bytearray(50_000_000))


def act_print(work, lines):
    for i in range(lines):
        print("line", i, "x" * 1000, flush=True)
    time.sleep(1.5)
    raise RuntimeError("the last words")


def act_spawn(work, leave=None):
    """Start a process that would outlive the job."""
    import subprocess

    sleeper = subprocess.Popen(["sleep", "1000"])
    (work.directory / "sleeper").write_text(str(sleeper.pid))
    if leave:
        Path(leave).write_text(str(sleeper.pid))
        os._exit(1)
    time.sleep(1000)


KINDS = {"test": JobKind("test", started, run, failed)}


@contextmanager
def settings_and_database():
    from whiteroom import config
    from whiteroom.store.database import Database

    settings = config.load()
    database = Database(settings.sqlalchemy_url)
    yield settings, database
    database.close()


def main(role, *arguments):
    from whiteroom.jobs import child, worker

    with settings_and_database() as (settings, database):
        if role == "job":
            job_id, attempt = map(int, arguments)
            return child.run(job_id, attempt, database, KINDS, None, settings)
        supervisor = worker.Worker(
            settings, database, KINDS, (*COMMAND, "job"), grace_seconds=0.3, back_off_seconds=0.05
        )
        signal.signal(signal.SIGTERM, lambda *_: supervisor.stop())
        supervisor.run()
        return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
