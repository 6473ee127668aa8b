"""What a model learned is told to the operator, who hands it to the owner, and to nobody else."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pyarrow as pa
import pytest

from tests.e2e.conftest import Parties, refused
from tests.population import generate, population, put_parquet, register_table, train


def test_the_operator_reads_what_a_model_learned(parties: Parties, tmp_path: Path) -> None:
    picture = tmp_path / "report.svg"
    report = json.loads(
        parties.server.cli("audience-model", "report", parties.model_arn, "--json", "--picture", str(picture))
    )
    people = parties.population
    assert report["n_users"] == len(people.users)
    users = people.table.to_pandas().drop_duplicates(["user_id", "item_id"]).groupby("item_id").size()
    assert [count for _, count in report["popular"]] == users.sort_values(ascending=False).head(20).tolist()
    assert len(report["probes"]) == 10
    shown = parties.server.cli("audience-model", "report", parties.model_arn)
    assert report["popular"][0][0] in shown and "recall of probes" in shown
    assert "Recall by audience size" in [element.text for element in ElementTree.parse(picture).iter()]


def test_a_report_of_an_encrypted_model_is_read_by_its_key_and_lies_nowhere_in_clear(parties: Parties) -> None:
    table = population(users=400, items=100, per_user=8).table
    hidden = pa.array([f"unheard-of-{item}" for item in table.column("item_id").to_pylist()])
    location = put_parquet(
        parties.publisher, "publisher-data", "told/p.parquet", table.set_column(1, "item_id", hidden)
    )
    register_table(parties.server, parties.publisher, "told", location)
    key = f"arn:aws:kms:us-east-1:{parties.publisher.id}:key/report"
    model = train(parties.publisher, "told", "told", kmsKeyArn=key)
    report = json.loads(parties.server.cli("audience-model", "report", model["audienceModelArn"], "--json"))
    assert report["n_users"] == 400
    assert report["popular"][0][0].startswith("unheard-of-")
    kept = [path for path in parties.server.data_dir.rglob("*") if path.is_file() and "s3" not in path.parts]
    assert len(kept) > 5
    assert not [path for path in kept if b"unheard-of-" in path.read_bytes()]


def test_nothing_of_a_report_reaches_the_account_that_brings_a_seed(parties: Parties) -> None:
    job = generate(parties.advertiser, "curious", parties.configured_arn, parties.seed_uri)
    assert job["status"] == "ACTIVE"
    ml = parties.advertiser.ml
    refused("ResourceNotFoundException", ml.get_audience_model, audienceModelArn=parties.model_arn)
    assert ml.list_audience_models()["audienceModels"] == []
    report = json.loads(parties.server.cli("audience-model", "report", parties.model_arn, "--json"))
    seen = json.dumps([job, ml.list_audience_generation_jobs()], default=str)
    seen += json.dumps(parties.publisher.ml.get_audience_model(audienceModelArn=parties.model_arn), default=str)
    for word in ("popular", "probe", "report", "learned", *(item for item, _ in report["popular"])):
        assert word not in seen


def test_a_model_that_is_none_has_no_report(parties: Parties) -> None:
    arn = parties.model_arn[:-4] + "0000"
    with pytest.raises(AssertionError, match=f"There is no audience model {arn}"):
        parties.server.cli("audience-model", "report", arn)
