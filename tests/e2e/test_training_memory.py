"""A training that needs more memory than a job may take ends with a code and says what to do; the server lives on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from tests.population import population, put_parquet, register_table, train
from tests.server import Account, Server, running


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose jobs may take half a gigabyte: enough for the libraries and for small tables."""
    settings = {"WHITEROOM_JOB_MEMORY_BYTES": str(2**29)}
    with running(tmp_path_factory.mktemp("tight") / "data", environment=settings) as server:
        yield server


def trained(server: Server, account: Account, name: str, table: pa.Table) -> dict[str, object]:
    location = put_parquet(account, "publisher-data", f"{name}/part-0.parquet", table)
    register_table(server, account, name, location)
    return train(account, name, name)


def test_a_table_that_needs_too_much_memory_fails_with_a_code_and_the_next_one_trains(tight: Server) -> None:
    publisher = tight.account("111122223333", "publisher", "publisher-data")
    # 300,000 items with a few users each: what is learned of them takes half a kilobyte an item, several times over.
    n = 1_000_000
    items = np.random.default_rng(0).integers(0, 300_000, n)
    table = pa.table({"user_id": np.arange(n) // 4, "item_id": items, "timestamp": np.full(n, 1_700_000_000)})
    model = trained(tight, publisher, "large", table)
    assert (model["status"], model["statusDetails"]["statusCode"]) == ("CREATE_FAILED", "OUT_OF_MEMORY"), model
    told = model["statusDetails"]["message"]
    assert "more than the 0.5 GiB of memory" in told and "Use fewer users, items or features" in told
    assert str(tight.data_dir) not in told, "a path of the server is nobody's business"
    assert trained(tight, publisher, "small", population(users=400, items=100, per_user=8).table)["status"] == "ACTIVE"
