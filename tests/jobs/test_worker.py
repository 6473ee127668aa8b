"""Real workers, real child processes, both databases: how a job ends in each case."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from sqlalchemy import text

from tests.jobs.conftest import wait_for
from tests.jobs.rig import COMMAND
from whiteroom.jobs import queue
from whiteroom.jobs.sweep import sweep
from whiteroom.jobs.worker import LOG_BYTES
from whiteroom.store import resources


def failure(crew, job_id):
    resource = crew.resource(job_id)
    assert resource.status == "CREATE_FAILED"
    return resource.body


def is_gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def log_of(crew, job_id, attempt):
    return (crew.settings.data_dir / "logs" / "jobs" / f"{job_id}-{attempt}.log").read_text()


def test_a_job_runs_and_its_result_shows_with_its_end(crew):
    job_id = crew.enqueue(**{"with": {"steps": 2}})
    job = crew.ended(job_id)
    assert (job.status, job.attempt, job.crashes, job.progress) == ("DONE", 1, 0, 1.0)
    assert crew.effects(job_id) == ["ACTIVE"]
    resource = crew.resource(job_id)
    assert (resource.status, resource.body, resource.private) == ("ACTIVE", {"done": [0, 1]}, {"attempt": 1})
    assert (crew.directory(job) / "result").read_text() == "attempt 1"


def test_an_idle_worker_takes_a_job_at_once(crew):
    crew.ended(crew.enqueue())
    waits = []
    for _ in range(3):
        job_id = crew.enqueue()
        job = crew.ended(job_id)
        waits.append((job.started - job.created).total_seconds())
    assert min(waits) < 0.2


def test_an_error_of_the_user_fails_the_job_at_once_with_its_code(crew):
    job = crew.ended(crew.enqueue("user_error"))
    assert (job.status, job.attempt) == ("FAILED", 1)
    assert crew.effects(job.id) == ["INVALID_SEED_DATA"]
    assert failure(crew, job.id) == {"code": "INVALID_SEED_DATA", "message": "The seed has no ids."}
    wait_for(lambda: crew.attempts_on_disk(job.id) == [])


def test_a_crash_is_tried_again_and_may_then_succeed(crew):
    job = crew.ended(crew.enqueue("raise", **{"with": {"until": 2}}))
    assert (job.status, job.attempt, job.crashes) == ("DONE", 2, 1)
    assert "a bug at attempt 1" in job.error
    assert "RuntimeError: a bug at attempt 1" in log_of(crew, job.id, 1)
    assert crew.effects(job.id) == ["ACTIVE"]
    wait_for(lambda: crew.attempts_on_disk(job.id) == [2])


@pytest.mark.parametrize(
    ("act", "named", "code"),
    [
        ("raise", {}, "INTERNAL_ERROR"),
        ("leave", {"code": 0}, "INTERNAL_ERROR"),
        ("kill_itself", {}, "OUT_OF_MEMORY"),
    ],
)
def test_a_job_that_always_crashes_fails_for_good_once_its_attempts_are_used_up(crew, act, named, code):
    job = crew.ended(crew.enqueue(act, max_attempts=2, **{"with": named}))
    assert (job.status, job.attempt) == ("FAILED", 2)
    assert crew.effects(job.id) == [code]
    told = failure(crew, job.id)
    assert told["code"] == code
    assert "bug" not in told["message"]


def test_a_job_over_its_memory_limit_fails_alone(own_crew):
    own_crew.settings = replace(own_crew.settings, job_memory_bytes=1_000_000_000)
    own_crew.start()
    greedy, modest = own_crew.enqueue("eat", max_attempts=1), own_crew.enqueue()
    assert own_crew.ended(modest).status == "DONE"
    assert own_crew.ended(greedy).status == "FAILED"
    assert failure(own_crew, greedy)["code"] == "OUT_OF_MEMORY"
    assert "MemoryError" in log_of(own_crew, greedy, 1)


def test_a_job_that_cannot_start_fails_and_holds_up_no_other(crew):
    broken, sound = crew.enqueue(cannot_start=True, max_attempts=2), crew.enqueue()
    assert crew.ended(sound).status == "DONE"
    assert crew.ended(broken).status == "FAILED"
    assert failure(crew, broken)["code"] == "INTERNAL_ERROR"
    assert "the start is broken" in crew.job(broken).error


def test_a_failure_that_cannot_be_shown_still_ends_the_job(crew):
    job = crew.ended(crew.enqueue("raise", max_attempts=1, cannot_fail=True))
    assert job.status == "FAILED"
    assert crew.effects(job.id) == []


@pytest.mark.parametrize("end", ["cancel", "forget"])
def test_a_running_job_that_ignores_sigterm_is_killed_when_its_resource_lets_go(crew, tmp_path, end):
    job_id = crew.enqueue("hold", **{"with": {"release": str(tmp_path / "never")}})
    pid = int(crew.running(job_id, "pid").read_text())
    with crew.database.write() as tx:
        getattr(queue, end)(tx, queue.get(tx, job_id).resource_arn)
    wait_for(lambda: not psutil.pid_exists(pid), seconds=5)
    if end == "cancel":
        assert crew.ended(job_id).status == "FAILED"
        assert crew.effects(job_id) == ["CANCELLED"]
    else:
        assert crew.effects(job_id) == []
    wait_for(lambda: crew.attempts_on_disk(job_id) == [])


def test_a_job_cancelled_while_it_waits_never_runs(own_crew):
    job_id = own_crew.enqueue()
    with own_crew.database.write() as tx:
        queue.cancel(tx, queue.get(tx, job_id).resource_arn)
    own_crew.start()
    assert own_crew.ended(job_id).attempt == 0
    assert own_crew.effects(job_id) == ["CANCELLED"]


def test_a_worker_told_to_stop_gives_its_jobs_back_uncounted(own_crew, tmp_path):
    worker = own_crew.start()
    release = tmp_path / "release"
    job_id = own_crew.enqueue("hold", max_attempts=1, **{"with": {"release": str(release)}})
    pid = int(own_crew.running(job_id, "pid").read_text())
    worker.terminate()
    assert worker.wait(5) == 0
    assert not psutil.pid_exists(pid)
    job = own_crew.job(job_id)
    assert (job.status, job.crashes) == ("QUEUED", 0)
    release.touch()
    own_crew.start()
    assert own_crew.ended(job_id).status == "DONE"
    assert own_crew.effects(job_id) == ["ACTIVE"]


def test_a_killed_workers_child_dies_with_it_and_another_worker_goes_on_from_the_checkpoint(own_crew):
    worker = own_crew.start()
    job_id = own_crew.enqueue(**{"with": {"steps": 4, "seconds": 2.0}})
    wait_for(lambda: (own_crew.job(job_id).checkpoint or {}).get("done") == [0, 1])
    worker.kill()
    wait_for(lambda: own_crew.children() == [], seconds=2)
    own_crew.start()
    job = own_crew.ended(job_id)
    assert (job.status, job.attempt, job.crashes) == ("DONE", 2, 1)
    assert own_crew.effects(job_id) == ["ACTIVE"]
    assert own_crew.resource(job_id).body == {"done": [0, 1, 2, 3]}


def test_what_a_job_has_started_ends_when_the_job_is_cancelled(crew):
    job_id = crew.enqueue("spawn")
    sleeper = int(crew.running(job_id, "sleeper").read_text())
    with crew.database.write() as tx:
        queue.cancel(tx, queue.get(tx, job_id).resource_arn)
    crew.ended(job_id)
    wait_for(lambda: is_gone(sleeper))


def test_what_a_job_has_started_ends_when_the_job_crashes(crew, tmp_path):
    note = tmp_path / "sleeper"
    crew.ended(crew.enqueue("spawn", max_attempts=1, **{"with": {"leave": str(note)}}))
    sleeper = int(note.read_text())
    wait_for(lambda: is_gone(sleeper))


def test_a_stopped_worker_whose_job_went_to_another_cannot_end_it(own_crew, tmp_path):
    release = tmp_path / "release"
    zombie = own_crew.start()
    job_id = own_crew.enqueue("hold", **{"with": {"release": str(release)}})
    first = int(own_crew.running(job_id, "pid").read_text())
    os.kill(zombie.pid, signal.SIGSTOP)
    os.kill(first, signal.SIGSTOP)
    own_crew.start()
    wait_for(lambda: own_crew.job(job_id).attempt == 2)
    second = int(own_crew.running(job_id, "pid").read_text())
    release.touch()
    os.kill(second, signal.SIGSTOP)  # only the zombie's child can go on to the end now
    os.kill(first, signal.SIGCONT)
    wait_for(lambda: is_gone(first))
    assert own_crew.job(job_id).status == "RUNNING"
    assert own_crew.effects(job_id) == []
    os.kill(zombie.pid, signal.SIGCONT)
    os.kill(second, signal.SIGCONT)
    assert own_crew.ended(job_id).attempt >= 2
    assert own_crew.effects(job_id) == ["ACTIVE"]


def test_a_child_that_comes_too_late_does_nothing(own_crew):
    job_id = own_crew.enqueue()
    with own_crew.database.write() as tx:
        job = queue.claim(tx, "gone", ("test",), datetime.now(UTC), 60)
        queue.give_back(tx, job, run_after=datetime.now(UTC), crashed=True)
    done = subprocess.run([*COMMAND, "job", str(job_id), "1"], env=own_crew.environment())
    assert done.returncode == 75
    assert own_crew.attempts_on_disk(job_id) == []


def test_a_talkative_jobs_log_is_bounded_and_keeps_the_last_words(crew):
    job = crew.ended(crew.enqueue("print", max_attempts=1, **{"with": {"lines": 3000}}))
    assert "the last words" in job.error
    log = log_of(crew, job.id, 1)
    assert len(log) < LOG_BYTES
    assert log.startswith("[what was printed before is not kept]")


def test_a_database_that_is_locked_for_a_while_delays_jobs_and_loses_none(crew):
    ids = [crew.enqueue() for _ in range(2)]
    for _ in range(3):
        with crew.database.write() as tx:
            tx.execute(text("UPDATE job SET progress_text = 'held'"))  # on PostgreSQL a lock on every row
            time.sleep(0.5)
    assert [crew.ended(job_id).status for job_id in ids] == ["DONE"] * 2
    assert [crew.effects(job_id) for job_id in ids] == [["ACTIVE"]] * 2


# --- sweeping ------------------------------------------------------------------------------------------


def test_sweeping_removes_what_no_live_attempt_owns_and_nothing_else(own_crew):
    running, waiting, done, failed, deleted = (own_crew.enqueue() for _ in range(5))
    now = datetime.now(UTC)
    with own_crew.database.write() as tx:
        jobs = {job.id: job for job in iter(lambda: queue.claim(tx, "w", ("test",), now, 60), None)}
        queue.give_back(tx, jobs[waiting], run_after=now, crashed=True)
        queue.finish(tx, jobs[done], now)
        queue.fail(tx, jobs[failed], "x", now)
        queue.forget(tx, jobs[deleted].resource_arn)
    data_dir = own_crew.settings.data_dir
    for job_id in (running, waiting, done, failed, deleted):
        for attempt in (0, 1):
            directory = data_dir / "artifacts" / str(job_id) / str(attempt)
            directory.mkdir(parents=True)
            (directory / "file").write_text("x")
        log = data_dir / "logs" / "jobs" / f"{job_id}-1.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
    (data_dir / "artifacts" / "README").write_text("not ours")
    sweep(own_crew.database, data_dir)
    left = {job_id: own_crew.attempts_on_disk(job_id) for job_id in (running, waiting, done, failed, deleted)}
    assert left == {running: [1], waiting: [], done: [1], failed: [], deleted: []}
    assert not (data_dir / "artifacts" / str(deleted)).exists()
    assert (data_dir / "artifacts" / "README").exists()
    logs = sorted(p.name for p in (data_dir / "logs" / "jobs").iterdir())
    assert logs == [f"{job_id}-1.log" for job_id in (running, waiting, done, failed)]
    assert sweep(own_crew.database, data_dir) == []


def test_sweeping_all_the_time_harms_no_running_job(crew):
    ids = [crew.enqueue(**{"with": {"steps": 3, "seconds": 0.3}}) for _ in range(6)]
    while any(crew.job(job_id).status not in ("DONE", "FAILED") for job_id in ids):
        sweep(crew.database, crew.settings.data_dir)
    for job_id in ids:
        job = crew.job(job_id)
        assert (job.status, job.attempt) == ("DONE", 1)
        assert (crew.directory(job) / "result").read_text() == "attempt 1"


# --- what a worker costs -------------------------------------------------------------------------------


def test_a_worker_loads_nothing_that_jobs_need():
    program = """
import sys
import whiteroom.jobs.worker
heavy = {"numpy", "pyarrow", "scipy", "implicit", "boto3", "botocore", "alembic"}
print(sorted(heavy & {name.split(".")[0] for name in sys.modules}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_idle_worker_does_not_spin(crew):
    worker = crew.workers[0]
    crew.ended(crew.enqueue())
    process = psutil.Process(worker.pid)
    before = process.cpu_times()
    time.sleep(3)
    after = process.cpu_times()
    assert (after.user + after.system - before.user - before.system) / 3 < 0.1


def test_a_resource_deleted_under_its_running_job_leaves_nothing(crew, tmp_path):
    job_id = crew.enqueue("hold", **{"with": {"release": str(tmp_path / "never")}})
    pid = int(crew.running(job_id, "pid").read_text())
    resource = crew.resource(job_id)
    with crew.database.write() as tx:
        queue.forget(tx, resource.arn)
        resources.delete(tx, resource)
    wait_for(lambda: not psutil.pid_exists(pid))
    wait_for(lambda: crew.attempts_on_disk(job_id) == [])
    wait_for(lambda: not list(Path(crew.settings.data_dir).glob(f"logs/jobs/{job_id}-*")))
