"""The service over a real socket, by boto3 and by clients that know no manners."""

import http.client
import json
import logging
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from tests.wire.small_service import MAX_BODY_BYTES, THREADS
from whiteroom.wire import protocol, service
from whiteroom.wire.routes import Routes
from whiteroom.wire.spec import operations

ROLE = "arn:aws:iam::111122223333:role/reader"
COLUMN = {"columnName": "user_id", "columnTypes": ["USER_ID"]}
SOURCE = {"glueDataSource": {"tableName": "t", "databaseName": "d"}}
DATA = [{"type": "INTERACTIONS", "inputConfig": {"schema": [COLUMN], "dataSource": SOURCE}}]
DATASET = {"name": "n", "roleArn": ROLE, "trainingData": DATA}
NOWHERE = "arn:aws:cleanrooms-ml:eu-west-1:111122223333:training-dataset/nowhere/at/all"


def failed(call, /, **members) -> dict:
    with pytest.raises(ClientError) as error:
        call(**members)
    return error.value.response


def raw(url, method, path, *, body=None, headers=()) -> tuple[int, dict, bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    connection.request(method, path, body=body, headers=dict(headers))
    response = connection.getresponse()
    answer = response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    connection.close()
    return answer


def test_a_resource_lives_and_dies(client, ledger):
    ml = client()
    arn = ml.create_training_dataset(**DATASET)["trainingDatasetArn"]
    assert arn == "arn:aws:cleanrooms-ml:eu-west-1:111122223333:training-dataset/0/x"
    got = ml.get_training_dataset(trainingDatasetArn=arn)
    assert {k: got[k] for k in DATASET} == DATASET
    deleted = ml.delete_training_dataset(trainingDatasetArn=arn)
    assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert not ledger.datasets
    assert ledger.transactions == [("committed", True), ("committed", False), ("committed", True)]


def test_a_204_has_no_body(client):
    deleted = client("cleanrooms").delete_membership(membershipIdentifier="6f1b0c4e-0000-4000-8000-000000000000")
    assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert "content-type" not in deleted["ResponseMetadata"]["HTTPHeaders"]


def test_paths_of_both_services_go_by_the_signature(client):
    assert client().list_tags_for_resource(resourceArn=NOWHERE)["tags"] == {"service": "cleanroomsml"}
    arn = "arn:aws:cleanrooms:eu-west-1:111122223333:membership/6f1b"
    assert client("cleanrooms").list_tags_for_resource(resourceArn=arn)["tags"] == {"service": "cleanrooms"}


def test_modelled_errors_arrive_as_the_clients_exceptions(client):
    ml = client()
    with pytest.raises(ml.exceptions.ResourceNotFoundException, match="There is no training dataset") as error:
        ml.get_training_dataset(trainingDatasetArn=NOWHERE)
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    arn = NOWHERE
    response = failed(ml.create_audience_model, name="n", trainingDatasetArn=arn)
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 402
    assert (response["quotaName"], response["quotaValue"]) == ("models", 2)


def test_every_answer_has_a_request_id_of_its_own(client, url):
    ml = client()
    answers = [ml.list_training_datasets() for _ in range(2)]
    answers.append(failed(ml.get_training_dataset, trainingDatasetArn=NOWHERE))
    ids = {a["ResponseMetadata"]["RequestId"] for a in answers}
    ids |= {raw(url, "GET", path)[1]["x-amzn-requestid"] for path in ("/", "/healthz", "/training-dataset")}
    assert len(ids) == 6


def test_invalid_input_is_told_in_awss_words(client):
    error = failed(client().create_training_dataset, **{**DATASET, "name": "x" * 64})
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert error["Error"]["Code"] == "ValidationException"
    assert error["Error"]["Message"].startswith("1 validation error detected: Value 'xxx")


def test_wrong_keys_are_refused_alike(client):
    wrong = failed(client(secret="wrong").list_training_datasets)
    unknown = failed(client(key="AKIANOBODY").list_training_datasets)
    assert wrong["Error"] == unknown["Error"]
    assert wrong["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_an_unsigned_request_is_refused_before_it_is_read(url):
    status, headers, body = raw(url, "POST", "/training-dataset", body=b"{")
    assert (status, headers["x-amzn-errortype"]) == (403, "MissingAuthenticationTokenException")
    assert "not signed" in json.loads(body)["message"]


def test_what_is_not_served_says_so(client):
    error = failed(client().list_configured_audience_models)
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 501
    assert error["Error"]["Code"] == "NotImplementedException"
    assert "ListConfiguredAudienceModels" in error["Error"]["Message"]
    assert "docs/api-status.md" in error["Error"]["Message"]


def test_what_is_not_served_is_still_checked(client, url):
    assert failed(client(secret="wrong").list_configured_audience_models)["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert failed(client().list_configured_audience_models, maxResults=1000)["Error"]["Code"] == "ValidationException"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"), ("GET", "/training-datasets"), ("GET", "/training-dataset/"), ("GET", "//training-dataset"),
        ("GET", "/training-dataset/arn:aws:a/b"), ("GET", "/training-dataset/.."), ("GET", "/healthz/"),
        ("HEAD", "/training-dataset"), ("OPTIONS", "/training-dataset"), ("PATCH", "/training-dataset/a"),
        ("GET", "/training%2Ddataset"), ("POST", "/healthz"),
    ],
)  # fmt: skip
def test_what_is_no_operation_is_unknown(url, method, path):
    status, headers, _ = raw(url, method, path)
    assert (status, headers["x-amzn-errortype"]) == (404, "UnknownOperationException")


def test_a_wrong_method_is_told_the_right_ones(url):
    assert b"it has GET, POST" in raw(url, "PUT", "/training-dataset")[2]


def test_denials_are_reported_after_the_roll_back(client, ledger):
    ml = client()
    assert failed(ml.create_training_dataset, **{**DATASET, "name": "denied"})["Error"]["Message"] == "You may not."
    assert failed(ml.list_audience_models)["Error"]["Code"] == "AccessDeniedException"
    assert not ledger.datasets
    assert ledger.transactions == [("rolled back", True), ("rolled back", False)]
    assert [(call.operation, error.audit, call.tx) for call, error in ledger.denied] == [
        ("CreateTrainingDataset", "the test says so", None),
        ("ListAudienceModels", "no scope", None),
    ]


@pytest.mark.parametrize("name", ["fails", "unknown answer", "unknown error"])
def test_a_mistake_of_ours_is_logged_rolled_back_and_leaks_nothing(client, ledger, caplog, name):
    with caplog.at_level(logging.ERROR):
        error = failed(client().create_training_dataset, **{**DATASET, "name": name})
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert error["Error"]["Code"] == "InternalServiceException"
    assert "secret" not in str(error)
    assert not ledger.datasets
    record = next(r for r in caplog.records if r.name == "whiteroom.wire.service")
    assert error["ResponseMetadata"]["RequestId"] in record.getMessage()
    assert record.exc_info


def test_a_body_over_the_limit_is_refused_and_boto3_hears_of_it(client):
    huge = {**DATASET, "tags": {"k": "x" * 50_000_000}}
    error = failed(client().create_training_dataset, **huge)
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 413
    assert error["Error"]["Code"] == "RequestEntityTooLargeException"
    assert str(MAX_BODY_BYTES) in error["Error"]["Message"]


def test_a_body_over_the_limit_without_a_length_is_refused(url):
    chunks = (b"x" * 65_536 for _ in range(300))
    status, headers, _ = raw(url, "POST", "/training-dataset", body=chunks)
    assert (status, headers["x-amzn-errortype"]) == (413, "RequestEntityTooLargeException")


def test_a_client_that_asks_first_sends_no_large_body(url):
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        request = f"POST /training-dataset HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-length: 50000000\r\n"
        connection.sendall(f"{request}expect: 100-continue\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_body_at_the_limit_is_read(client, url):
    status, headers, _ = raw(url, "POST", "/training-dataset", body=b"x" * MAX_BODY_BYTES)
    assert (status, headers["x-amzn-errortype"]) == (403, "MissingAuthenticationTokenException")


def test_a_body_that_does_not_come_is_not_waited_for(url, monkeypatch):
    monkeypatch.setattr(service, "BODY_SECONDS", 0.2)
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(
            f"POST /training-dataset HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-length: 5\r\n\r\nx".encode()
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "head",
    [
        b"GET /training-dataset HTTP/1.1\r\nhost: x\r\nx-long: " + b"a" * 600_000,  # no end: the server cuts it off
        b"GET /training-dataset HTTP/1.1\r\nhost: x\r\nx-long: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET /training-dataset HTTP/1.1\r\nhost: x\r\n" + b"x-more: abc\r\n" * 7000 + b"\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
)
def test_headers_without_end_are_refused(url, head):
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        with suppress(OSError):  # closed before it had all
            connection.sendall(head)
        with suppress(ConnectionResetError):
            assert connection.recv(100).startswith(b"HTTP/1.1 400 ")


def test_headers_that_do_not_come_are_not_waited_for(url, monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    address = urlsplit(url)
    for begun in (b"", b"GET /training-dataset HTTP/1.1\r\nhost: x\r\n"):
        with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
            connection.sendall(begun)
            assert connection.recv(100) == b""


def test_a_long_authorization_holds_nobody_up(url):
    began = time.monotonic()
    raw(url, "GET", "/training-dataset", headers={"authorization": "Credential=" * 5500})
    assert time.monotonic() - began < 0.2


def test_a_pipeline_of_requests_is_answered(url):
    address = urlsplit(url)
    request = f"GET /healthz HTTP/1.1\r\nhost: {address.netloc}\r\nx-long: {'a' * 1000}\r\n\r\n".encode()
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(request * 200)
        answers = b""
        while answers.count(b"HTTP/1.1 200 OK") < 200:
            answers += connection.recv(65_536)


def test_a_client_that_leaves_harms_nobody(url, client):
    address = urlsplit(url)
    for _ in range(20):
        with socket.create_connection((address.hostname, address.port)) as connection:
            connection.sendall(
                f"POST /training-dataset HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-length: 9\r\n\r\nx".encode()
            )
    assert client().list_training_datasets()["trainingDatasets"] == []


def test_waiting_handlers_run_side_by_side_and_do_not_hold_up_the_loop(client, url, ledger):
    ml = client(max_pool_connections=THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        waiting = [pool.submit(ml.list_training_datasets, nextToken="wait") for _ in range(THREADS)]
        while ledger.barrier.n_waiting < THREADS:
            time.sleep(0.01)
        assert raw(url, "POST", "/training-dataset", body=b"x" * (MAX_BODY_BYTES + 1))[0] == 413
        ledger.barrier.wait(timeout=20)
        assert all(w.result() for w in waiting)


def test_health_is_answered_without_a_signature(url, ledger):
    status, headers, body = raw(url, "GET", "/healthz")
    assert (status, headers["content-type"], json.loads(body)["ready"]) == (200, "application/json", True)
    assert raw(url, "HEAD", "/healthz")[::2] == (200, b"")
    ledger.ready = False
    assert raw(url, "GET", "/healthz")[0] == 503


def test_an_operation_that_does_not_exist_cannot_be_served():
    registry: service.Registry = {}
    service.operation("cleanroomsml", "GetEverything", scope=lambda call: None, registry=registry)(lambda *_: {})
    nothing = {"transaction": None, "lookup": None, "context": None, "on_denied": None, "health": None}
    with pytest.raises(ValueError, match="no operation cleanroomsml GetEverything"):
        service.Service(**nothing, max_body_bytes=1, registry=registry)


def test_an_operation_cannot_be_registered_twice():
    registry: service.Registry = {}
    register = service.operation("cleanroomsml", "TagResource", scope=lambda call: None, registry=registry)
    register(lambda call, values: {})
    with pytest.raises(ValueError, match="two handlers"):
        register(lambda call, values: {})


def test_an_operation_cannot_be_registered_without_a_scope():
    with pytest.raises(TypeError, match="scope"):
        service.operation("cleanroomsml", "TagResource")


def test_every_operation_is_found_by_its_own_path():
    routes = Routes(operations().values())
    for operation in operations().values():
        found, labels = routes.match(operation.method, operation.path, operation.signing_name)
        assert found is operation
        assert all(label == f"{{{name}}}" for name, label in labels.items())
