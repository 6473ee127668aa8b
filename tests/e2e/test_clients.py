"""AWS's other clients, unchanged but for the endpoint: the AWS CLI and the JavaScript SDK."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Parties
from tests.server import Account

SDK = Path(__file__).parents[1] / "js" / "node_modules" / "aws-sdk"


def environment(account: Account) -> dict[str, str]:
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith("AWS_")},
        "AWS_ACCESS_KEY_ID": account.access_key_id,
        "AWS_SECRET_ACCESS_KEY": account.secret_access_key,
        "AWS_DEFAULT_REGION": account.region,
        "AWS_ENDPOINT_URL": account.api_url,
    }


def aws(account: Account, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "awscli", *arguments],
        capture_output=True,
        text=True,
        env=environment(account),
        check=False,
    )


def test_the_aws_cli_reads_and_writes(parties: Parties) -> None:
    model = aws(parties.publisher, "cleanroomsml", "get-audience-model", "--audience-model-arn", parties.model_arn)
    assert model.returncode == 0, model.stderr
    assert json.loads(model.stdout)["status"] == "ACTIVE"
    tag = ("--resource-arn", parties.model_arn, "--tags", "by=cli")
    assert aws(parties.publisher, "cleanroomsml", "tag-resource", *tag).returncode == 0
    listed = aws(parties.publisher, "cleanroomsml", "list-tags-for-resource", *tag[:2])
    assert json.loads(listed.stdout)["tags"]["by"] == "cli"
    foreign = aws(parties.stranger, "cleanroomsml", "get-audience-model", "--audience-model-arn", parties.model_arn)
    assert foreign.returncode != 0
    assert "ResourceNotFoundException" in foreign.stderr


@pytest.mark.skipif(not (SDK.is_dir() and shutil.which("node")), reason="needs node, and `make setup` with npm")
def test_the_javascript_sdk_reads_and_writes(parties: Parties) -> None:
    script = """
        const { CleanRoomsML } = require(process.argv[1]);
        const client = new CleanRoomsML({ apiVersion: '2023-09-06', endpoint: process.env.AWS_ENDPOINT_URL,
                                          region: 'us-east-1', maxRetries: 0 });
        (async () => {
          const arn = process.argv[2];
          await client.tagResource({ resourceArn: arn, tags: { by: 'javascript' } }).promise();
          const model = await client.getAudienceModel({ audienceModelArn: arn }).promise();
          const refused = await client.getAudienceModel({ audienceModelArn: arn + 'x' }).promise().catch(e => e.code);
          console.log(JSON.stringify({ model, refused, date: model.createTime instanceof Date }));
        })();
    """
    done = subprocess.run(
        ["node", "-e", script, str(SDK), parties.model_arn],
        capture_output=True,
        text=True,
        env=environment(parties.publisher) | {"AWS_SDK_JS_SUPPRESS_MAINTENANCE_MODE_MESSAGE": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["model"]["tags"]["by"] == "javascript"
    assert answer["date"] is True
    assert answer["refused"] == "ResourceNotFoundException"
