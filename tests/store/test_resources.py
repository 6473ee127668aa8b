"""Resources: scope, unique names, pages, compare-and-set, dependencies; on both databases."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy.exc import StatementError

from tests.store.rows import ADVERTISER, NOW, PUBLISHER, put_resource, register
from whiteroom.store import accounts, resources
from whiteroom.store.resources import InUse, Missing, NameTaken, Scope, Stale

MINE = Scope.of(PUBLISHER)
THEIRS = Scope.of(ADVERTISER)
ALL = Scope.service(why="a test looks at everything")


@pytest.fixture(autouse=True)
def parties(database):
    register(database, PUBLISHER, ADVERTISER)


@pytest.fixture
def put(database):
    def put(**facts):
        with database.write() as tx:
            return put_resource(tx, **facts)

    return put


def load(database, resource, scope=ALL):
    with database.read() as tx:
        return resources.load(tx, scope, resource.kind, resource.arn)


def listed(*rows):
    """The rows as a page shows them: without their private facts."""
    return [resources.Listed(*row[:-1]) for row in rows]


def page(database, scope=MINE, kind="model", **filters):
    with database.read() as tx:
        return resources.page(tx, scope, kind, limit=filters.pop("limit", 100), **filters)


def test_a_resource_is_read_as_it_was_written(database, put):
    body = {"z": 1, "a": [1.5, None, True], "name": "rôle \U0001f9ea \u0000", "deep": {"b": {}}}
    written = put(name="  spaces \U0001f9ea", body=body, private={"artifact": 7}, status="CREATE_PENDING")
    read = load(database, written, MINE)
    assert read == written
    assert list(read.body) == ["z", "a", "name", "deep"]
    assert (read.version, read.created, read.updated, read.region) == (1, NOW, NOW, "us-east-1")


def test_times_keep_their_microseconds_and_come_back_in_utc(database, put):
    at = datetime(2026, 3, 4, 5, 6, 7, 123457, tzinfo=timezone(timedelta(hours=9)))
    read = load(database, put(now=at))
    assert read.created == at
    assert read.created.tzinfo is UTC


def test_a_time_without_a_zone_is_refused(put):
    with pytest.raises(StatementError, match="no time zone"):
        put(now=datetime(2026, 1, 1))


def test_a_number_that_json_has_not_is_refused(put):
    with pytest.raises((StatementError, ValueError), match="JSON"):
        put(body={"relevance": float("nan")})


# --- scope ---------------------------------------------------------------------------------------------


def test_another_accounts_resource_is_missing_in_the_words_of_one_that_never_was(database, put):
    theirs = put(account=ADVERTISER)
    with database.read() as tx:
        with pytest.raises(Missing) as hidden:
            resources.load(tx, MINE, "model", theirs.arn)
        with pytest.raises(Missing) as absent:
            resources.load(tx, MINE, "model", "arn:none")
    assert str(hidden.value).replace(theirs.arn, "arn:none") == str(absent.value)
    assert load(database, theirs, THEIRS) == theirs


def test_an_arn_of_another_kind_is_missing(database, put):
    mine = put(kind="dataset")
    with database.read() as tx, pytest.raises(Missing):
        resources.load(tx, MINE, "model", mine.arn)


def test_a_scope_of_one_region_sees_no_other_region(database, put):
    here, there = put(region="us-east-1"), put(region="eu-west-1")
    scope = Scope.of(PUBLISHER, "us-east-1")
    assert page(database, scope) == listed(here)
    with database.read() as tx:
        assert resources.count(tx, scope, "model") == 1
        with pytest.raises(Missing):
            resources.load(tx, scope, "model", there.arn)


def test_the_service_scope_sees_every_account(database, put):
    both = [put(account=PUBLISHER), put(account=ADVERTISER)]
    assert page(database, ALL) == listed(*both[::-1])
    assert [load(database, one, ALL) for one in both] == both


@pytest.mark.parametrize("arguments", [(None,), (None, ""), ("",)])
def test_a_scope_without_an_account_must_say_why(arguments):
    with pytest.raises(ValueError, match="says why"):
        Scope(*arguments)


# --- names ---------------------------------------------------------------------------------------------


def test_a_taken_name_is_refused_and_the_transaction_goes_on(database):
    with database.write() as tx:
        first = put_resource(tx, unique_name="n")
        with pytest.raises(NameTaken, match="n is taken"):
            put_resource(tx, unique_name="n")
        second = put_resource(tx, unique_name="m")
    assert page(database) == listed(second, first)


@pytest.mark.parametrize(
    "other", [{"account": ADVERTISER}, {"region": "eu-west-1"}, {"kind": "dataset"}, {"unique_name": "N"}]
)
def test_a_name_is_unique_for_its_account_region_and_kind_only(put, other):
    put(unique_name="n")
    put(**{"unique_name": "n", **other})


def test_resources_without_a_unique_name_may_share_their_name(database, put):
    put(name="n", unique_name=None)
    put(name="n", unique_name=None)
    assert len(page(database)) == 2


def test_a_deleted_resources_name_is_free_again(database, put):
    first = put(unique_name="n")
    with database.write() as tx:
        resources.delete(tx, first)
    assert put(unique_name="n").sequence > first.sequence


def test_of_a_hundred_threads_one_gets_the_name(database):
    start = threading.Barrier(20)

    def create(_):
        start.wait()
        try:
            with database.write() as tx:
                return put_resource(tx, unique_name="wanted")
        except NameTaken:
            return None

    with ThreadPoolExecutor(20) as threads:
        winners = [r for r in threads.map(create, range(100)) if r is not None]
    assert page(database) == listed(*winners)
    assert len(winners) == 1


# --- pages ---------------------------------------------------------------------------------------------


def test_pages_run_from_new_to_old_and_survive_inserts_and_deletes(database, put):
    rows = [put() for _ in range(7)]
    first = page(database, limit=3)
    assert first == listed(*rows[:3:-1])
    put()
    with database.write() as tx:
        resources.delete(tx, first[-1])
    second = page(database, limit=3, before=first[-1].sequence)
    third = page(database, limit=3, before=second[-1].sequence)
    assert first + second + third == listed(*rows[::-1])


def test_the_newest_row_of_all_may_be_deleted_without_its_place_being_given_again(database, put):
    newest = put()
    with database.write() as tx:
        resources.delete(tx, newest)
    assert put().sequence > newest.sequence


def test_a_page_is_filtered_by_parent_status_and_collaboration(database, put):
    parent = put(kind="dataset")
    wanted = put(parent=parent.arn, status="ACTIVE", collaboration="c-1")
    put(parent=parent.arn, status="CREATE_FAILED", collaboration="c-1")
    put(parent=parent.arn, status="ACTIVE", collaboration="c-2")
    put(parent=None, status="ACTIVE")
    assert page(database, parent=parent.arn, status="ACTIVE", collaboration="c-1") == listed(wanted)
    assert len(page(database, parent=parent.arn)) == 3
    assert len(page(database, status="ACTIVE")) == 3


def test_counting_heeds_scope_kind_statuses_and_parent(database, put):
    parent = put(kind="dataset")
    put(status="CREATE_PENDING", parent=parent.arn)
    put(status="CREATE_IN_PROGRESS")
    put(status="ACTIVE")
    put(status="CREATE_PENDING", account=ADVERTISER)
    with database.read() as tx:
        pending = ("CREATE_PENDING", "CREATE_IN_PROGRESS")
        assert resources.count(tx, MINE, "model") == 3
        assert resources.count(tx, ALL, "model") == 4
        assert resources.count(tx, MINE, "model", statuses=pending) == 2
        assert resources.count(tx, MINE, "model", statuses=pending, parent=parent.arn) == 1
        assert resources.count(tx, MINE, "model", statuses=()) == 0


def test_a_quota_holds_against_concurrent_creates(database):
    def create(_):
        with database.write() as tx:
            accounts.lock(tx, PUBLISHER)
            if resources.count(tx, MINE, "model") < 5:
                put_resource(tx)

    with ThreadPoolExecutor(20) as threads:
        list(threads.map(create, range(40)))
    assert len(page(database)) == 5


# --- changes -------------------------------------------------------------------------------------------


def test_an_update_changes_what_is_given_and_nothing_else(database, put):
    parent = put(kind="dataset")
    before = put(body={"a": 1}, private={"p": 1})
    later = NOW + timedelta(seconds=5)
    with database.write() as tx:
        after = resources.update(tx, before, now=later, status="ACTIVE", body={}, parent=parent.arn)
    assert load(database, before) == after
    assert (after.status, after.body, after.private, after.parent) == ("ACTIVE", {}, {"p": 1}, parent.arn)
    assert (after.version, after.created, after.updated, after.name) == (2, NOW, later, before.name)


def test_what_was_changed_since_it_was_read_is_neither_changed_nor_deleted(database, put):
    seen = put()
    with database.write() as tx:
        changed = resources.update(tx, seen, now=NOW, status="ACTIVE")
    for change in (lambda tx: resources.update(tx, seen, now=NOW, status="X"), lambda tx: resources.delete(tx, seen)):
        with pytest.raises(Stale), database.write() as tx:
            change(tx)
    assert load(database, seen) == changed


def test_of_twenty_concurrent_updates_of_one_version_one_is_kept(database, put):
    seen = put()
    start = threading.Barrier(20)

    def change(i):
        start.wait()
        try:
            with database.write() as tx:
                return resources.update(tx, seen, now=NOW, body={"by": i})
        except Stale:
            return None

    with ThreadPoolExecutor(20) as threads:
        kept = [r for r in threads.map(change, range(20)) if r is not None]
    assert kept == [load(database, seen)]


def test_a_deleted_resource_is_gone(database, put):
    gone = put()
    with database.write() as tx:
        resources.delete(tx, gone)
    with pytest.raises(Missing):
        load(database, gone, MINE)
    with pytest.raises(Stale), database.write() as tx:
        resources.delete(tx, gone)


def test_a_parent_cannot_be_deleted_while_any_account_depends_on_it(database, put):
    parent = put(kind="dataset")
    child = put(account=ADVERTISER, parent=parent.arn)
    with database.read() as tx:
        assert resources.has_children(tx, parent.arn)
        assert not resources.has_children(tx, child.arn)
    with pytest.raises(InUse, match=parent.arn), database.write() as tx:
        resources.delete(tx, parent)
    with database.write() as tx:
        resources.delete(tx, child)
        resources.delete(tx, parent)


def test_a_child_of_nothing_is_refused(database, put):
    with pytest.raises(Missing):
        put(parent="arn:none")
    with pytest.raises(Missing):
        put(account="999999999999")
    child = put()
    with pytest.raises(Missing), database.write() as tx:
        resources.update(tx, child, now=NOW, parent="arn:none")
    assert page(database) == listed(child)


def test_a_child_made_while_its_parent_is_deleted_ends_one_way_or_the_other(database, put):
    for _ in range(5):
        parent = put(kind="dataset")
        start = threading.Barrier(2)

        def delete(parent=parent, start=start):
            start.wait()
            with database.write() as tx:
                resources.delete(tx, parent)

        def create(parent=parent, start=start):
            start.wait()
            with database.write() as tx:
                put_resource(tx, parent=parent.arn)

        with ThreadPoolExecutor(2) as threads:
            futures = [threads.submit(delete), threads.submit(create)]
        ends = [future.exception() for future in futures]
        assert [type(end) for end in ends] in ([type(None), Missing], [InUse, type(None)])
