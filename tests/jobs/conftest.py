"""A crew: worker processes over one database and data directory, and what a test asks of them."""

import os
import signal
import subprocess
import time
from datetime import UTC, datetime

import psutil
import pytest
from sqlalchemy import text

from tests.databases import migrated, new_url
from tests.jobs.rig import COMMAND, EVERYBODY, ROOT
from tests.store.rows import PUBLISHER, put_resource, register
from whiteroom.config import Settings
from whiteroom.jobs import queue
from whiteroom.store import resources


def wait_for(condition, seconds=20.0, step=0.02):
    """The condition's first true value; fails the test when there is none in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(step)
    raise AssertionError(f"nothing came of {condition} in {seconds} seconds")


class Crew:
    def __init__(self, settings, database):
        self.settings = settings
        self.database = database
        self.workers = []

    def start(self):
        """One more worker process."""
        with (self.settings.data_dir / "worker.log").open("ab") as log:
            process = subprocess.Popen([*COMMAND, "worker"], env=self.environment(), stdout=log, stderr=log)
        self.workers.append(process)
        return process

    def environment(self):
        return os.environ | self.settings.to_environment() | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}

    def enqueue(self, act="work", max_attempts=3, **payload):
        with self.database.write() as tx:
            return self.enqueue_in(tx, act, max_attempts, **payload)

    def enqueue_in(self, tx, act="work", max_attempts=3, **payload):
        now = datetime.now(UTC)
        resource = put_resource(tx, now=now)
        return queue.enqueue(tx, "test", resource.arn, {"act": act, **payload}, now=now, max_attempts=max_attempts)

    def job(self, job_id):
        with self.database.read() as tx:
            return queue.get(tx, job_id)

    def resource(self, job_id):
        with self.database.read() as tx:
            return resources.load(tx, EVERYBODY, "model", queue.get(tx, job_id).resource_arn)

    def effects(self, job_id):
        with self.database.read() as tx:
            rows = tx.execute(text("SELECT what FROM effect WHERE job = :job"), {"job": job_id})
            return [row.what for row in rows]

    def ended(self, job_id, seconds=20.0):
        return wait_for(lambda: (job := self.job(job_id)).status in ("DONE", "FAILED") and job, seconds)

    def running(self, job_id, name="result"):
        """The path of what the job's live attempt has written."""

        def written():
            job = self.job(job_id)
            path = self.directory(job) / name
            return job.status == "RUNNING" and path.exists() and path.read_text() and path

        return wait_for(written)

    def directory(self, job):
        return self.settings.data_dir / "artifacts" / str(job.id) / str(job.attempt)

    def children(self):
        """Ids of the job processes of this crew, whoever's children they are now."""
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            try:
                ours = process.environ().get("WHITEROOM_DATA_DIR") == str(self.settings.data_dir)
                if ours and "job" in process.info["cmdline"] and process.info["status"] != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
            except psutil.Error:
                continue  # it ended meanwhile
        return found

    def attempts_on_disk(self, job_id):
        return sorted(int(p.name) for p in (self.settings.data_dir / "artifacts" / str(job_id)).glob("*"))

    def stop(self):
        for process in self.workers:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGCONT)
                process.terminate()
        for process in self.workers:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise


@pytest.fixture
def own_crew(database, database_url, tmp_path):
    """A crew without workers yet, for tests that stop, kill or configure them."""
    yield from hired(database, database_url, tmp_path / "data")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def crew(request, tmp_path_factory):
    """A crew of one worker, shared by the tests that leave it alone."""
    directory = tmp_path_factory.mktemp("crew")
    url = new_url(request, directory)
    with migrated(url) as database:
        for crew in hired(database, url, directory / "data"):
            crew.start()
            yield crew


def hired(database, database_url, data_dir):
    register(database, PUBLISHER)
    with database.write() as tx:
        tx.exec_driver_sql("CREATE TABLE effect (job INTEGER, attempt INTEGER, what TEXT)")
    data_dir.mkdir()
    settings = Settings(data_dir=data_dir, database_url=database_url, workers=2, lease_seconds=1.0)
    crew = Crew(settings, database)
    yield crew
    crew.stop()
