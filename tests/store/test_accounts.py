"""Accounts, keys, buckets, catalog tables and audit events, on both databases."""

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from tests.store.rows import ADVERTISER, NOW, PUBLISHER, PlainSecrets, register
from whiteroom.store import accounts, audit, buckets, tables
from whiteroom.store.accounts import AccountExists, NoAccount
from whiteroom.store.buckets import BucketTaken
from whiteroom.store.tables import CatalogTable, Column, TableExists

SECRETS = PlainSecrets()


def test_an_account_comes_with_a_key_of_the_aws_form(database):
    with database.write() as tx:
        key = accounts.create(tx, SECRETS, PUBLISHER, "publisher", NOW)
    assert re.fullmatch(r"AKIA[A-Z2-7]{16}", key.access_key_id)
    assert re.fullmatch(r"[A-Za-z0-9+/]{40}", key.secret_access_key)
    assert key.secret_access_key not in repr(key)
    with database.read() as tx:
        account, sealed = accounts.find_key(tx, key.access_key_id)
        assert accounts.find_key(tx, key.access_key_id.lower()) is None
        assert accounts.find_key(tx, "AKIANONE") is None
        assert [(a.id, a.name, a.created) for a in accounts.listing(tx)] == [(PUBLISHER, "publisher", NOW)]
    assert account == PUBLISHER
    context = accounts.secret_context(key.access_key_id)
    assert SECRETS.open(sealed, context=context).decode() == key.secret_access_key


def test_secrets_are_stored_sealed_for_their_own_key_only(database):
    register(database, PUBLISHER)
    with database.write() as tx:
        one, other = (accounts.add_key(tx, SECRETS, PUBLISHER, NOW) for _ in range(2))
    with database.read() as tx:
        _, sealed = accounts.find_key(tx, one.access_key_id)
    with pytest.raises(AssertionError):
        SECRETS.open(sealed, context=accounts.secret_context(other.access_key_id))


def test_an_account_may_have_several_keys(database):
    with database.write() as tx:
        first = accounts.create(tx, SECRETS, PUBLISHER, "publisher", NOW)
        second = accounts.add_key(tx, SECRETS, PUBLISHER, NOW + timedelta(seconds=1))
    with database.read() as tx:
        assert accounts.key_ids(tx, PUBLISHER) == [first.access_key_id, second.access_key_id]
        assert accounts.key_ids(tx, ADVERTISER) == []
    with pytest.raises(NoAccount, match=ADVERTISER), database.write() as tx:
        accounts.add_key(tx, SECRETS, ADVERTISER, NOW)


@pytest.mark.parametrize("account_id", ["", "1", "11112222333", "1111222233334", "11112222333a", "111122223333\n"])
def test_an_account_id_must_have_twelve_digits(database, account_id):
    with pytest.raises(ValueError, match="12 digits"), database.write() as tx:
        accounts.create(tx, SECRETS, account_id, "x", NOW)


def test_of_concurrent_registrations_of_an_account_one_succeeds(database):
    def create(i):
        try:
            with database.write() as tx:
                return accounts.create(tx, SECRETS, PUBLISHER, f"name {i}", NOW)
        except AccountExists:
            return None

    with ThreadPoolExecutor(20) as threads:
        keys = [key for key in threads.map(create, range(20)) if key is not None]
    with database.read() as tx:
        assert accounts.key_ids(tx, PUBLISHER) == [key.access_key_id for key in keys]
    assert len(keys) == 1


def test_only_an_account_that_exists_can_be_locked(database):
    with pytest.raises(NoAccount), database.write() as tx:
        accounts.lock(tx, PUBLISHER)


# --- buckets -------------------------------------------------------------------------------------------


def test_a_bucket_belongs_to_one_account(database):
    register(database, PUBLISHER, ADVERTISER)
    with database.write() as tx:
        buckets.create(tx, "zebra", PUBLISHER, NOW)
        buckets.create(tx, "apple", PUBLISHER, NOW)
        buckets.create(tx, "Zoo", ADVERTISER, NOW)
        with pytest.raises(BucketTaken, match="zebra"):
            buckets.create(tx, "zebra", ADVERTISER, NOW)
    with database.read() as tx:
        assert buckets.owner(tx, "zebra") == PUBLISHER
        assert buckets.owner(tx, "Zebra") is None
        assert [b.name for b in buckets.listing(tx, PUBLISHER)] == ["apple", "zebra"]
        assert [b.name for b in buckets.listing(tx, None)] == ["Zoo", "apple", "zebra"]


def test_a_bucket_needs_an_account(database):
    with pytest.raises(NoAccount, match=PUBLISHER), database.write() as tx:
        buckets.create(tx, "zebra", PUBLISHER, NOW)


# --- catalog tables ------------------------------------------------------------------------------------


def table(account=PUBLISHER, name="interactions", **facts):
    columns = (Column("user id", "string"), Column("genres", "array<string>"), Column("at", "bigint"))
    default = {"database": "shop", "location": "s3://b/x/", "format": "parquet", "columns": columns}
    return CatalogTable(account=account, name=name, **default | facts)


def test_a_catalog_table_is_read_as_it_was_written(database):
    register(database, PUBLISHER, ADVERTISER)
    written = [table(name="b"), table(name="a"), table(database="Z", format="csv"), table(account=ADVERTISER)]
    with database.write() as tx:
        for one in written:
            tables.put(tx, one)
    with database.read() as tx:
        assert tables.get(tx, PUBLISHER, "shop", "b") == written[0]
        assert tables.get(tx, PUBLISHER, "shop", "interactions") is None
        assert tables.get(tx, ADVERTISER, "shop", "b") is None
        assert tables.listing(tx, PUBLISHER) == [written[2], written[1], written[0]]
        assert tables.listing(tx, None) == [written[2], written[1], written[0], written[3]]


def test_a_catalog_table_is_not_replaced_and_needs_an_account(database):
    register(database, PUBLISHER)
    with database.write() as tx:
        tables.put(tx, table())
        with pytest.raises(TableExists, match=r"shop\.interactions"):
            tables.put(tx, table(location="s3://other/"))
    with pytest.raises(NoAccount), database.write() as tx:
        tables.put(tx, table(account=ADVERTISER))
    with database.read() as tx:
        assert tables.listing(tx, None) == [table()]


# --- audit ---------------------------------------------------------------------------------------------


def test_a_decision_is_kept_for_its_account_only(database):
    with database.write() as tx:
        for i in range(5):
            audit.record(
                tx,
                now=NOW + timedelta(seconds=i),
                account=PUBLISHER,
                operation="StartAudienceGenerationJob",
                resource=f"arn:{i}",
                allowed=i % 2 == 0,
                reason="the policy names no such account",
                detail={"caller": ADVERTISER},
            )
        audit.record(tx, now=NOW, account=ADVERTISER, operation="X", resource=None, allowed=False, reason="no such key")
    with database.read() as tx:
        first = audit.listing(tx, PUBLISHER, limit=3)
        rest = audit.listing(tx, PUBLISHER, limit=3, before=first[-1].id)
        assert [event.resource for event in first + rest] == ["arn:4", "arn:3", "arn:2", "arn:1", "arn:0"]
        assert [event.allowed for event in first] == [True, False, True]
        assert first[0].detail == {"caller": ADVERTISER}
        assert first[0].at == NOW + timedelta(seconds=4)
        assert [(e.resource, e.detail) for e in audit.listing(tx, ADVERTISER, limit=9)] == [(None, {})]
