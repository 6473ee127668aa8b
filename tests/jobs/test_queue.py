"""The queue's statements, on both databases: who gets a job, who may end it, what is left of it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from tests.store.rows import NOW, PUBLISHER, put_resource, register
from whiteroom.jobs import queue
from whiteroom.jobs.queue import DONE, FAILED, QUEUED, RUNNING, Fenced
from whiteroom.store import resources
from whiteroom.store.resources import Missing

KINDS = ("train",)


def at(seconds):
    return NOW + timedelta(seconds=seconds)


@pytest.fixture
def ask(database):
    """Call a function of the queue in a transaction of its own."""
    register(database, PUBLISHER)

    def ask(function, *arguments, **named):
        with database.write() as tx:
            return function(tx, *arguments, **named)

    return ask


@pytest.fixture
def add(ask):
    def add(kind="train", payload=None, max_attempts=3, now=NOW):
        def both(tx):
            resource = put_resource(tx)
            return queue.enqueue(tx, kind, resource.arn, payload or {}, now=now, max_attempts=max_attempts)

        return ask(both)

    return add


@pytest.fixture
def take(ask):
    def take(now=NOW, worker="w", kinds=KINDS):
        return ask(queue.claim, worker, kinds, now, 10)

    return take


def test_a_job_waits_as_it_was_enqueued(ask, add):
    job = ask(queue.get, add(payload={"seed": ["a", 1]}, max_attempts=2))
    assert (job.kind, job.payload, job.status, job.attempt) == ("train", {"seed": ["a", 1]}, QUEUED, 0)
    assert (job.crashes, job.max_attempts, job.created, job.run_after) == (0, 2, NOW, NOW)
    assert (job.checkpoint, job.started, job.ended, job.error, job.worker) == (None,) * 5
    assert ask(queue.of, job.resource_arn) == job


def test_a_job_and_its_resource_are_kept_together_or_not_at_all(database, ask):
    def enqueue_then_break(tx):
        resource = put_resource(tx)
        queue.enqueue(tx, "train", resource.arn, {}, now=NOW, max_attempts=3)
        raise KeyError(resource.arn)

    with pytest.raises(KeyError) as error:
        ask(enqueue_then_break)
    arn = error.value.args[0]
    with database.read() as tx:
        assert queue.of(tx, arn) is None
        with pytest.raises(Missing):
            resources.load(tx, resources.Scope.of(PUBLISHER), "model", arn)


def test_a_claim_gives_the_job_a_lease_and_the_next_attempt_number(add, take, ask):
    job_id = add()
    job = take(at(1), "worker 7")
    assert (job.id, job.status, job.attempt, job.worker) == (job_id, RUNNING, 1, "worker 7")
    assert (job.started, job.lease_until) == (at(1), at(11))
    assert ask(queue.get, job_id) == job


def test_the_job_that_waited_longest_comes_first(add, take):
    second, first = add(now=at(2)), add(now=at(1))
    assert [take(at(5)).id, take(at(5)).id, take(at(5))] == [first, second, None]


def test_ready_tells_what_a_claim_would_find(add, take, ask):
    assert not ask(queue.ready, KINDS, NOW)
    add(now=at(5))
    assert not ask(queue.ready, KINDS, at(4))
    assert ask(queue.ready, KINDS, at(5))
    assert not ask(queue.ready, ("other",), at(5))
    take(at(5))
    assert not ask(queue.ready, KINDS, at(5))


def test_a_worker_leaves_kinds_that_it_does_not_know(add, take):
    add(kind="of a later version")
    assert take() is None


def test_twenty_claimers_take_each_of_fifty_jobs_once(database, add, take):
    ids = [add() for _ in range(50)]
    start = threading.Barrier(20)

    def work(i):
        start.wait()
        mine = []
        while True:
            with database.write() as tx:
                job = queue.claim(tx, f"w{i}", KINDS, NOW, 10)
            if job is None:
                return mine
            mine.append(job)

    with ThreadPoolExecutor(20) as threads:
        taken = [job for mine in threads.map(work, range(20)) for job in mine]
    assert sorted(job.id for job in taken) == ids
    assert {job.attempt for job in taken} == {1}


def test_renewing_prolongs_the_lease_of_the_live_attempt_only(add, take, ask):
    add()
    lost = take()
    assert ask(queue.renew, lost, at(5), 10)
    assert ask(queue.get, lost.id).lease_until == at(15)
    ask(queue.give_back, lost, run_after=NOW, crashed=True)
    live = take()
    assert not ask(queue.renew, lost, at(6), 10)
    assert ask(queue.renew, live, at(6), 10)


@pytest.mark.parametrize("end", ["give_back", "give_back_and_claim", "finish", "fail", "forget", "cancel"])
def test_an_attempt_that_lost_the_job_can_change_nothing(add, take, ask, end):
    add()
    lost = take()
    if end.startswith("give_back"):
        ask(queue.give_back, lost, run_after=NOW, crashed=True)
        if end.endswith("claim"):
            take()
    elif end == "finish":
        ask(queue.finish, lost, NOW)
    elif end == "fail":
        ask(queue.fail, lost, "broken", NOW)
    elif end == "forget":
        assert ask(queue.forget, lost.resource_arn) == [lost.id]
    else:
        assert ask(queue.cancel, lost.resource_arn)
    before = ask(queue.get, lost.id)
    with pytest.raises(Fenced):
        ask(queue.finish, lost, NOW)
    with pytest.raises(Fenced):
        ask(queue.report, lost, progress=0.5, progress_text="x")
    assert not ask(queue.renew, lost, NOW, 10)
    assert not ask(queue.fail, lost, "x", NOW, even_cancelled=False)
    assert ask(queue.live, [lost]) == set()
    if end != "cancel":
        assert not ask(queue.fail, lost, "x", NOW)
        assert not ask(queue.give_back, lost, run_after=NOW, crashed=True)
    assert ask(queue.get, lost.id) == before


def test_a_fenced_ending_takes_the_whole_transaction_with_it(database, add, take, ask):
    add()
    lost = take()
    ask(queue.give_back, lost, run_after=NOW, crashed=True)

    def end(tx):
        resource = resources.load(tx, resources.Scope.of(PUBLISHER), "model", lost.resource_arn)
        resources.update(tx, resource, now=NOW, status="ACTIVE")
        queue.finish(tx, lost, NOW)

    with pytest.raises(Fenced):
        ask(end)
    with database.read() as tx:
        scope = resources.Scope.of(PUBLISHER)
        assert resources.load(tx, scope, "model", lost.resource_arn).status == "CREATE_PENDING"


def test_of_two_endings_at_one_time_one_counts(database, add, take):
    for _ in range(10):
        add()
        job = take()
        start = threading.Barrier(2)

        def end(function, job=job, start=start):
            start.wait()
            with database.write() as tx:
                return function(tx, job)

        def finish(tx, job):
            queue.finish(tx, job, NOW)

        def lose(tx, job):
            return queue.give_back(tx, job, run_after=at(10**6), crashed=True)

        with ThreadPoolExecutor(2) as threads:
            finished, given_back = threads.submit(end, finish), threads.submit(end, lose)
        status = DONE if finished.exception() is None else QUEUED
        assert given_back.result() is (status == QUEUED)
        with database.read() as tx:
            assert queue.get(tx, job.id).status == status


def test_the_next_attempt_finds_the_last_ones_checkpoint(add, take, ask):
    add()
    first = take()
    ask(queue.report, first, checkpoint={"rows": 10})
    ask(queue.report, first, progress=0.25, progress_text="reading")
    ask(queue.give_back, first, run_after=at(3), crashed=True, error="killed")
    waiting = ask(queue.get, first.id)
    assert (waiting.crashes, waiting.error, waiting.worker, waiting.lease_until) == (1, "killed", None, None)
    assert take(at(2)) is None
    second = take(at(3))
    assert (second.attempt, second.checkpoint) == (2, {"rows": 10})
    assert (second.progress, second.progress_text) == (0.25, "reading")


def test_a_job_given_back_in_order_counts_no_crash(add, take, ask):
    add()
    ask(queue.give_back, take(), run_after=NOW, crashed=False)
    again = take()
    assert (again.attempt, again.crashes) == (2, 0)


def test_an_ended_job_tells_when_and_why(add, take, ask):
    add(), add()
    done, broken = take(), take()
    ask(queue.finish, done, at(4))
    ask(queue.fail, broken, "the reason", at(5))
    done, broken = ask(queue.get, done.id), ask(queue.get, broken.id)
    assert (done.status, done.ended, done.progress, done.lease_until) == (DONE, at(4), 1.0, None)
    assert (broken.status, broken.ended, broken.error) == (FAILED, at(5), "the reason")


def test_an_error_that_is_no_proper_text_can_still_be_kept(add, take, ask):
    add()
    job = take()
    ask(queue.report, job, progress=0.5, progress_text="half a \ud83e character")
    ask(queue.give_back, job, run_after=NOW, crashed=True, error="NUL \0 and \udcff")
    kept = ask(queue.get, job.id)
    assert (kept.progress_text, kept.error) == ("half a ? character", "NUL  and ?")


def test_a_lapsed_lease_and_a_cancelled_wait_are_abandoned(add, take, ask):
    lapsed, live, cancelled, _waiting = add(now=at(-9)), add(now=at(-8)), add(), add()
    take(NOW), take(at(5))
    ask(queue.cancel, ask(queue.get, cancelled).resource_arn)
    assert [job.id for job in ask(queue.abandoned, KINDS, at(11))] == [lapsed, cancelled]
    assert ask(queue.any_abandoned, KINDS, at(11))
    assert ask(queue.live, [ask(queue.get, live)]) == {live}
    assert not ask(queue.any_abandoned, ("other",), at(11))


def test_a_cancelled_job_is_not_claimed_and_ends_by_the_worker_only(add, take, ask):
    add()
    job = ask(queue.get, add())
    assert ask(queue.cancel, job.resource_arn)
    take()
    assert take() is None
    assert ask(queue.fail, job, "cancelled", NOW)
    assert not ask(queue.cancel, job.resource_arn)


def test_deleting_a_resource_deletes_its_jobs(database, add, ask):
    job = ask(queue.get, add())

    def delete(tx):
        resource = resources.load(tx, resources.Scope.of(PUBLISHER), "model", job.resource_arn)
        resources.delete(tx, resource)

    ask(delete)
    assert ask(queue.get, job.id) is None


def test_a_forgotten_jobs_id_is_not_given_again(add, ask):
    job = ask(queue.get, add())
    assert ask(queue.forget, job.resource_arn) == [job.id]
    assert ask(queue.forget, job.resource_arn) == []
    assert add() > job.id
