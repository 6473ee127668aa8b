"""Workers, jobs and the database server are killed at random; every acknowledged job ends exactly once.

The moments are drawn from a seed, but the processes' own timing is not, so a failure may need several runs of
the same seed to come back.
"""

import contextlib
import os
import random
import signal
import time

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.jobs.conftest import wait_for
from whiteroom.jobs.sweep import sweep

CHAOS_SECONDS = 8.0
WORKERS = 2

pytestmark = pytest.mark.chaos


class Chaos:
    """What may happen at any moment, by the seed."""

    def __init__(self, crew, seed, server):
        self.crew = crew
        self.random = random.Random(seed)
        self.server = server
        self.resume = []

    def strike(self):
        blows = [self.kill_a_worker, self.kill_a_job, self.kill_a_job, self.stop_a_worker, self.ask_a_worker_to_end]
        if self.server:
            blows.append(self.kill_the_server)
        self.random.choice(blows)()

    def alive(self):
        return [worker for worker in self.crew.workers if worker.poll() is None]

    def kill_a_worker(self):
        self.random.choice(self.alive()).kill()

    def ask_a_worker_to_end(self):
        self.random.choice(self.alive()).terminate()

    def kill_a_job(self):
        children = self.crew.children()
        if children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.random.choice(children), signal.SIGKILL)

    def stop_a_worker(self):
        """Longer than a lease: its jobs go to others, and then it comes back."""
        pid = self.random.choice(self.alive()).pid
        os.kill(pid, signal.SIGSTOP)
        self.resume.append((time.monotonic() + 1.5 * self.crew.settings.lease_seconds, pid))

    def kill_the_server(self):
        self.server.kill()
        time.sleep(self.random.uniform(0, 0.5))
        self.server.start()

    def heal(self, *, everything=False):
        """Wake who has slept enough and replace the dead."""
        for due in list(self.resume):
            if everything or time.monotonic() > due[0]:
                self.resume.remove(due)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(due[1], signal.SIGCONT)
        while len(self.alive()) < WORKERS:
            self.crew.start()


def acknowledged(crew, *arguments, **payload):
    """A job's id once its commit was answered, else None: then it may or may not be there."""
    try:
        return crew.enqueue(*arguments, **payload)
    except DBAPIError:
        return None


def all_rows(crew, statement):
    with crew.database.read() as tx:
        return [tuple(row) for row in tx.execute(text(statement))]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", [20260101])
def test_every_acknowledged_job_ends_exactly_once_through_kills(own_crew, request, seed):
    crew = own_crew
    server = None if crew.database.is_sqlite else request.getfixturevalue("postgresql")
    chaos = Chaos(crew, seed, server)
    chaos.heal()
    wanted = {}
    end = time.monotonic() + CHAOS_SECONDS
    while time.monotonic() < end:
        if len(wanted) < 16:
            work = {"steps": 3, "seconds": chaos.random.uniform(0, 1.0)}
            wanted[acknowledged(crew, max_attempts=1000, **{"with": work})] = "ACTIVE"
            if len(wanted) % 4 == 1:
                wanted[acknowledged(crew, "user_error", 1000)] = "INVALID_SEED_DATA"
        chaos.strike()
        time.sleep(chaos.random.uniform(0.1, 0.7))
        chaos.heal()
    chaos.heal(everything=True)
    wanted.pop(None, None)

    wait_for(lambda: not all_rows(crew, "SELECT id FROM job WHERE status IN ('QUEUED', 'RUNNING')"), 120, step=0.2)
    crew.stop()
    effects = sorted(all_rows(crew, "SELECT job, what FROM effect"))
    assert len(effects) == len({job for job, _ in effects})
    assert dict(effects) | wanted == dict(effects)
    assert [job for job, _ in effects] == sorted(job for (job,) in all_rows(crew, "SELECT id FROM job"))
    assert crew.children() == []
    sweep(crew.database, crew.settings.data_dir)
    for job_id, what in effects:
        check_end(crew, crew.job(job_id), what)


def check_end(crew, job, what):
    """The job, its resource, its effect and its files tell one story."""
    resource = crew.resource(job.id)
    if what != "ACTIVE":
        assert (job.status, resource.status, resource.body["code"]) == ("FAILED", "CREATE_FAILED", what)
        assert crew.attempts_on_disk(job.id) == []
        return
    assert (job.status, resource.status, resource.body) == ("DONE", "ACTIVE", {"done": [0, 1, 2]})
    assert resource.private == {"attempt": job.attempt}
    assert crew.attempts_on_disk(job.id) == [job.attempt]
    assert (crew.directory(job) / "result").read_text() == f"attempt {job.attempt}"
    assert all_rows(crew, f"SELECT attempt FROM effect WHERE job = {job.id}") == [(job.attempt,)]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_commit_whose_answer_was_lost_is_not_made_twice(postgresql, own_crew):
    """The server dies just after, or just before, it has committed a job's end; the job's process asks again."""
    crew = own_crew
    crew.start()
    ids = [crew.enqueue(max_attempts=1000, **{"with": {"steps": 1, "seconds": 0.1}}) for _ in range(6)]
    for _ in range(4):
        before = len(all_rows(crew, "SELECT job FROM effect"))
        with contextlib.suppress(AssertionError):
            wait_for(lambda before=before: len(all_rows(crew, "SELECT job FROM effect")) > before, 3, step=0.001)
        postgresql.kill()
        postgresql.start()
    for job_id in ids:
        assert crew.ended(job_id, 60).status == "DONE"
        assert crew.effects(job_id) == ["ACTIVE"]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_job_that_outlives_an_outage_of_the_server_keeps_its_attempt(postgresql, own_crew, tmp_path):
    crew = own_crew
    crew.start()
    release = tmp_path / "release"
    job_id = crew.enqueue("hold", **{"with": {"release": str(release)}})
    crew.running(job_id, "pid")
    postgresql.kill()
    time.sleep(2 * crew.settings.lease_seconds)
    postgresql.start()
    release.touch()
    job = crew.ended(job_id)
    assert (job.status, job.attempt) == ("DONE", 1)
    assert crew.effects(job_id) == ["ACTIVE"]


def test_of_attempts_that_end_at_the_same_time_one_counts(own_crew, tmp_path):
    """A worker sleeps past its leases while its jobs run on; another worker's attempts end beside them."""
    crew = own_crew
    release = tmp_path / "release"
    sleeper = crew.start()
    ids = [crew.enqueue("hold", **{"with": {"release": str(release)}}) for _ in range(2)]
    for job_id in ids:
        crew.running(job_id, "pid")
    os.kill(sleeper.pid, signal.SIGSTOP)
    crew.start()
    for job_id in ids:
        wait_for(lambda job_id=job_id: crew.job(job_id).attempt == 2)
        crew.running(job_id, "pid")
    assert len(crew.children()) == 4
    release.touch()
    for job_id in ids:
        crew.ended(job_id)
    wait_for(lambda: len(crew.children()) == 0)
    os.kill(sleeper.pid, signal.SIGCONT)
    crew.stop()
    sweep(crew.database, crew.settings.data_dir)
    for job_id in ids:
        job = crew.job(job_id)
        assert (job.status, job.attempt, crew.effects(job_id)) == ("DONE", 2, ["ACTIVE"])
        assert crew.resource(job_id).private == {"attempt": 2}
        assert crew.attempts_on_disk(job_id) == [2]
