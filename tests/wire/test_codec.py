"""What the codec refuses, and in which words."""

import json
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from whiteroom.wire import codec
from whiteroom.wire.errors import ApiError
from whiteroom.wire.shapes import MAX_PROBLEMS, Problems, compile_walk
from whiteroom.wire.spec import model, operations

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
ROLE = "arn:aws:iam::111122223333:role/reader"
COLUMN = {"columnName": "user_id", "columnTypes": ["USER_ID"]}
SOURCE = {"dataSource": {"glueDataSource": {"tableName": "t", "databaseName": "d"}}}
DATASET = {
    "name": "n",
    "roleArn": ROLE,
    "trainingData": [
        {"type": "INTERACTIONS", "inputConfig": {"schema": [COLUMN, COLUMN], "dataSource": SOURCE["dataSource"]}}
    ],
}


def parse(name, body=b"", *, labels=(), query="", service="cleanroomsml"):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return codec.parse(operations()[service, name], dict(labels), query, body)


def refusal(*arguments, **named) -> str:
    with pytest.raises(ApiError) as refused:
        parse(*arguments, **named)
    assert refused.value.name == "ValidationException"
    return refused.value.message


def dataset(**changes) -> dict:
    return {**DATASET, **changes}


def test_a_valid_request_is_read_as_it_is():
    assert parse("CreateTrainingDataset", DATASET) == DATASET


def test_all_violations_come_together_in_awss_words():
    message = refusal("CreateTrainingDataset", {"name": "x" * 64, "roleArn": ROLE, "trainingData": [{"type": "X"}]})
    assert message == (
        "3 validation errors detected: "
        f"Value '{'x' * 64}' at 'name' failed to satisfy constraint: Member must have length less than or equal to 63; "
        "Value 'X' at 'trainingData.1.member.type' failed to satisfy constraint: "
        "Member must satisfy enum value set: [INTERACTIONS]; "
        "Value null at 'trainingData.1.member.inputConfig' failed to satisfy constraint: Member must not be null"
    )


def test_lengths_count_code_points():
    houses = dataset(name="\U0001f3e0" * 63)
    assert parse("CreateTrainingDataset", houses) == houses
    assert "less than or equal to 63" in refusal("CreateTrainingDataset", dataset(name="\U0001f3e0" * 64))


NO_COLUMNS = dataset(trainingData=[{**DATASET["trainingData"][0], "inputConfig": {"schema": [], **SOURCE}}])
VIOLATIONS = {
    "empty name": (
        dataset(name=""),
        "Value '' at 'name' failed to satisfy constraint: Member must have length greater",
    ),
    "blank name": (dataset(name=" "), "at 'name' failed to satisfy constraint: Member must satisfy regular expression"),
    "control character": (dataset(name="a\x00"), "Member must satisfy regular expression pattern"),
    "foreign ARN": (dataset(roleArn="arn:aws:s3:::a-bucket-of-mine"), "at 'roleArn' failed to satisfy constraint"),
    "unknown member": (dataset(nmae="n"), "'nmae' failed to satisfy constraint: Member is not a member of Create"),
    "null for a required member": (dataset(name=None), "Value null at 'name' failed"),
    "number for a string": (dataset(name=1), "at 'name' failed to satisfy constraint: Member must be a string"),
    "string for a list": (
        dataset(trainingData="x"),
        "'trainingData' failed to satisfy constraint: Member must be a list",
    ),
    "list for an object": (dataset(tags=[]), "'tags' failed to satisfy constraint: Member must be an object"),
    "too few items": (dataset(trainingData=[]), "'trainingData' failed to satisfy constraint: Member must have length"),
    "too few items further in": (NO_COLUMNS, "'trainingData.1.member.inputConfig.schema' failed"),
    "null in a list": (dataset(trainingData=[None]), "'trainingData.1.member' failed to satisfy constraint"),
    "too many tags": (
        dataset(tags={str(i): "" for i in range(201)}),
        "'tags' failed to satisfy constraint: Member must",
    ),
    "long tag key": (dataset(tags={"k" * 129: ""}), "at 'tags.key' failed"),
    "long tag value": (dataset(tags={"k": "v" * 257}), "at 'tags.k.value' failed"),
}


@pytest.mark.parametrize("what", VIOLATIONS)
def test_each_constraint_is_checked(what):
    body, expected = VIOLATIONS[what]
    message = refusal("CreateTrainingDataset", body)
    assert message.startswith("1 validation error detected: ")
    assert expected in message


def configured(**changes) -> dict:
    arn = "arn:aws:cleanrooms-ml:us-east-1:111122223333:audience-model/a"
    destination = {"s3Destination": {"s3Uri": "s3://b"}}
    whole = {"roleArn": ROLE, "dataDestination": destination}
    return {"name": "n", "audienceModelArn": arn, "outputConfig": whole, "sharedAudienceMetrics": ["ALL"], **changes}


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (600_000, "Value '600000' at 'minMatchingSeedSize' failed to satisfy constraint: Member must have value less"),
        (24, "Member must have value greater than or equal to 25"),
        (True, "Member must be an integer"),
        (30.0, "Member must be an integer"),
        ("30", "Value '30' at 'minMatchingSeedSize' failed to satisfy constraint: Member must be an integer"),
        (10**399, "Member must have value less than or equal to"),
    ],
)
def test_integers_are_integers_within_their_range(size, expected):
    assert expected in refusal("CreateConfiguredAudienceModel", configured(minMatchingSeedSize=size))


GLUE = {"glue": {"tableName": "t", "databaseName": "d"}}
ATHENA = {"athena": {"workGroup": "w", "databaseName": "d", "tableName": "t"}}


@pytest.mark.parametrize("reference", [{}, {**GLUE, **ATHENA}, {"glue": None}])
def test_a_union_has_exactly_one_member(reference):
    table = {"name": "n", "allowedColumns": ["a"], "analysisMethod": "DIRECT_QUERY"}
    for good in (GLUE, ATHENA, {**GLUE, "athena": None}):
        parse("CreateConfiguredTable", {**table, "tableReference": good}, service="cleanrooms")
    message = refusal("CreateConfiguredTable", {**table, "tableReference": reference}, service="cleanrooms")
    assert "'tableReference' failed to satisfy constraint: Member must have exactly one of these members" in message


BAD_JSON = {
    "cut off": (b'{"name": "n"', "not valid JSON"),
    "not an object": (b"[]", "must be a JSON object"),
    "a doubled member": (b'{"name": "a", "name": "b"}', "names a member twice"),
    "NaN": (b'{"name": NaN}', "NaN is no JSON number"),
    "Infinity": (b'{"name": -Infinity}', "-Infinity is no JSON number"),
    "bad UTF-8": (b'{"name": "\xff\xfe"}', "not valid Unicode"),
    "UTF-8 of a surrogate": (b'{"name": "\xed\xa0\x80"}', "not valid Unicode"),
    "half a surrogate pair": (b'{"name": "\\ud83c"}', "not valid Unicode"),
    "half a pair in a name": (b'{"\\udc00": 1}', "not valid Unicode"),
    "a byte order mark": (b'\xef\xbb\xbf{"name": "n"}', "not valid JSON"),
    "nested without end": (b'{"a":' + b"[" * 200_000, "nested too deeply"),
    "objects without end": (b'{"a":' * 200_000, "nested too deeply"),
    "an endless number": (b'{"a":' + b"1" * 2_000_000 + b"}", "more than 400 digits"),
    "UTF-16": ('{"name": "n"}'.encode("utf-16"), "not valid Unicode"),
}


@pytest.mark.parametrize("what", BAD_JSON)
def test_json_that_readers_disagree_about_is_refused(what):
    body, expected = BAD_JSON[what]
    started = time.process_time()
    assert expected in refusal("CreateTrainingDataset", body)
    assert time.process_time() - started < 1


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), 10**400, "0.5", True])
def test_doubles_are_finite_numbers(value):
    problems = Problems()
    walk = compile_walk(model("cleanroomsml").shape("RelevanceMetricScoreDouble"), incoming=True)
    assert walk(1, "at", problems) == 1
    assert not problems
    walk(value, "at", problems)
    assert problems


def test_documents_are_any_json_but_not_endlessly_deep():
    walk = compile_walk(model("cleanrooms").shape("Document"), incoming=True)
    deep = shallow = {"a": [1, 2.5, None, True, "x"]}
    for _ in range(100):
        deep = {"a": [deep]}
    problems = Problems()
    assert walk(shallow, "at", problems) == shallow
    assert not problems
    for bad in (deep, {"a": float("inf")}):
        walk(bad, "at", problems)
    assert ["nested at most 64 deep" in problems[0][1], "finite" in problems[1][1]] == [True, True]


def test_messages_stay_short_whatever_was_sent():
    many = {f"{i}{'x' * 1000}": "y" * 10_000 for i in range(300)}
    message = refusal("CreateTrainingDataset", many)
    assert message.startswith(f"{MAX_PROBLEMS} validation errors detected")
    assert len(message) < MAX_PROBLEMS * 400
    assert len(refusal("CreateTrainingDataset", dataset(name="x" * 3_000_000))) < 400
    assert len(refusal("CreateTrainingDataset", dataset(tags={"x" * 1_000_000: None}))) < 800


def test_what_is_sensitive_is_not_echoed():
    shapes = model("cleanroomsml")
    secret = next(s for s in map(shapes.shape, shapes.shapes) if s.metadata.get("sensitive") and s.type_name == "map")
    problems = Problems()
    compile_walk(secret, incoming=True)({"hush": "hush" * 3000, "x": 1}, "at", problems)
    assert len(problems) == 2
    assert "hush" not in str(problems)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("maxResults=abc", "Value 'abc' at 'maxResults' failed to satisfy constraint: Member must be an integer"),
        ("maxResults=", "Member must be an integer"),
        ("maxResults=0", "Member must have value greater than or equal to 1"),
        ("maxResults=1000", "Value '1000' at 'maxResults' failed to satisfy constraint: Member must have value less"),
        ("maxResults=" + "9" * 5000, "Member must be an integer"),
        ("maxResults=1&maxResults=1", "at 'maxResults' failed to satisfy constraint: Member must not be sent twice"),
        ("maxresults=1", "at 'maxresults' failed to satisfy constraint: Member is not a query parameter"),
        ("nextToken=" + "x" * 10241, "at 'nextToken' failed to satisfy constraint: Member must have length less"),
        ("nextToken=%ff", "not percent-encoded UTF-8"),
        ("nextToken=%zz", "not percent-encoded UTF-8"),
    ],
)
def test_query_parameters_are_checked(query, expected):
    assert expected in refusal("ListTrainingDatasets", query=query)


def test_a_plus_sign_in_a_query_is_a_plus_sign():
    assert parse("ListTrainingDatasets", query="nextToken=a+b%20c") == {"nextToken": "a+b c"}


def test_members_of_the_path_and_the_query_are_not_taken_from_the_body():
    assert "not a member of the body" in refusal("ListTrainingDatasets", {"maxResults": 1})


@pytest.mark.parametrize("label", ["%ff", "%", "arn%3aaws%3", "short"])
def test_labels_are_checked(label):
    refusal("GetTrainingDataset", labels={"trainingDatasetArn": label})


def test_timestamps_are_read_with_their_offset():
    arn = "arn:aws:cleanrooms-ml:us-east-1:111122223333:training-dataset/a"
    body = {"name": "n", "trainingDatasetArn": arn, "trainingDataStartTime": "2026-01-01T01:00:00.5+01:00"}
    read = parse("CreateAudienceModel", body)["trainingDataStartTime"]
    assert read == datetime(2026, 1, 1, 0, 0, 0, 500_000, UTC)
    assert read.tzinfo is UTC
    for bad in ("2026-01-01T01:00:00", "soon", 1_700_000_000, "0001-01-01T00:00:00+14:00", "x" * 100_000):
        assert "an ISO 8601 date and time" in refusal("CreateAudienceModel", {**body, "trainingDataStartTime": bad})


def test_timestamps_of_the_other_service_are_numbers_of_seconds():
    shape = model("cleanrooms").shape("Timestamp")
    problems = Problems()
    assert compile_walk(shape, incoming=True)(0.25, "", problems) == datetime(1970, 1, 1, 0, 0, 0, 250_000, UTC)
    for bad in ("2026-01-01T00:00:00Z", True, 1e300):
        compile_walk(shape, incoming=True)(bad, "at", problems)
    assert len(problems) == 3


def test_the_other_service_names_the_fields():
    with pytest.raises(ApiError) as refused:
        parse("CreateCollaboration", {"name": "n"}, service="cleanrooms")
    assert refused.value.members["reason"] == "FIELD_VALIDATION_FAILED"
    assert {"members", "creatorDisplayName"} <= {f["name"] for f in refused.value.members["fieldList"]}
    operation = operations()["cleanrooms", "CreateCollaboration"]
    assert b"fieldList" in codec.dump_error(operation.errors.by_name["ValidationException"], refused.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(list(DATASET)) | st.text(), inner),
)


@unhurried
@given(st.dictionaries(st.sampled_from(list(DATASET)), JSON) | JSON)
def test_any_json_is_read_or_refused_never_failed_on(body):
    try:
        parse("CreateTrainingDataset", json.dumps(body).encode())
    except ApiError as refused:
        assert refused.name == "ValidationException"


@unhurried
@given(st.binary(min_size=1))
def test_any_bytes_are_refused(body):
    with pytest.raises(ApiError):
        parse("CreateTrainingDataset", body)


NOW = datetime(2026, 5, 4, 3, 2, 1, 5, UTC)
ARN = "arn:aws:cleanrooms-ml:us-east-1:111122223333:training-dataset/a"
GOT = {
    "createTime": NOW, "updateTime": NOW, "trainingDatasetArn": ARN, "name": "n", "trainingData": [],
    "status": "ACTIVE", "roleArn": ROLE,
}  # fmt: skip


def dump(output, name="GetTrainingDataset") -> bytes:
    return codec.dump(operations()["cleanroomsml", name], output)


def test_answers_give_times_in_utc():
    got = {**GOT, "updateTime": NOW.astimezone(timezone(timedelta(hours=2)))}
    written = json.loads(dump(got))
    assert written["createTime"] == written["updateTime"] == "2026-05-04T03:02:01.000005Z"


@pytest.mark.parametrize(
    "output",
    [
        {**GOT, "secret": 1},
        {**GOT, "status": "DONE"},
        {**GOT, "createTime": "2026-05-04T03:02:01Z"},
        {**GOT, "createTime": NOW.replace(tzinfo=None)},
        {**GOT, "name": 5},
        {k: v for k, v in GOT.items() if k != "name"},
        None,
    ],
)
def test_an_answer_that_the_model_does_not_know_is_a_mistake_of_ours(output):
    with pytest.raises(codec.OutputError, match="GetTrainingDatasetResponse"):
        dump(output)


def test_ranges_of_answers_are_not_checked():
    shape = model("cleanroomsml").shape("RelevanceMetric")
    metric = {"audienceSize": {"type": "PERCENTAGE", "value": 20}, "score": -0.4}
    problems = Problems()
    assert compile_walk(shape, incoming=False)(metric, "", problems) == metric
    assert not problems


def test_an_operation_that_answers_nothing_takes_nothing():
    assert dump(None, "DeleteTrainingDataset") == b"{}"
    with pytest.raises(codec.OutputError, match="answers nothing"):
        dump({"a": 1}, "DeleteTrainingDataset")
