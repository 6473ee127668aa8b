"""Rows for tests that need some."""

import itertools
from datetime import UTC, datetime

from whiteroom.store import accounts, resources

PUBLISHER = "111122223333"
ADVERTISER = "444455556666"
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

_numbers = itertools.count(1)


class PlainSecrets:
    """Seals nothing; for tests that look at rows, not at secrets."""

    def seal(self, plain, *, context):
        return context + b"|" + plain

    def open(self, sealed, *, context):
        assert sealed.startswith(context + b"|")
        return sealed.removeprefix(context + b"|")


def register(database, *account_ids):
    with database.write() as tx:
        for account_id in account_ids:
            accounts.create(tx, PlainSecrets(), account_id, f"account {account_id}", NOW)


def put_resource(tx, **facts):
    number = next(_numbers)
    default = {
        "arn": f"arn:aws:cleanrooms-ml:us-east-1:111122223333:model/{number}",
        "kind": "model",
        "account": PUBLISHER,
        "region": "us-east-1",
        "name": f"name {number}",
        "status": "CREATE_PENDING",
        "parent": None,
        "body": {},
        "private": {},
        "unique_name": None,
        "now": NOW,
    }
    return resources.insert(tx, **default | facts)
