"""Resource policies: what may be put, and what they decide."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whiteroom.rooms.policies import ACTION, Decision, PolicyError, decide, digest, parse

MODEL = "arn:aws:cleanrooms-ml:us-east-1:111122223333:configured-audience-model/abc"
JOB = "arn:aws:cleanrooms-ml:us-east-1:111122223333:audience-generation-job/xyz"
ROOM = "11111111-2222-3333-4444-555555555555"


def statement(**changes: Any) -> dict[str, Any]:
    base = {"Effect": "Allow", "Principal": {"AWS": ["444455556666"]}, "Action": ACTION, "Resource": [MODEL]}
    return {k: v for k, v in (base | changes).items() if v is not None}


def document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def decided(*statements: dict[str, Any], account: str = "444455556666", room: str | None = None) -> Decision:
    facts = {"aws:principalaccount": account} | ({"cleanrooms-ml:collaborationid": room} if room else {})
    return decide(parse(document(*statements)), account=account, resource=MODEL, related=JOB, facts=facts)


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({}, True),
        ({"Principal": "*"}, True),
        ({"Principal": {"AWS": "arn:aws:iam::444455556666:root"}}, True),
        ({"Principal": {"AWS": ["111122223333"]}}, False),
        ({"Action": "cleanrooms-ml:*"}, True),
        ({"Action": ["CLEANROOMS-ML:startaudiencegenerationjob"]}, True),
        ({"Action": "cleanrooms-ml:GetAudienceGenerationJob"}, False),
        ({"Resource": "*"}, True),
        ({"Resource": MODEL[:-1] + "?"}, True),
        ({"Resource": MODEL.replace("abc", "[a]bc")}, False),
        ({"Resource": JOB}, False),
    ],
)
def test_a_statement_allows_what_it_names(changes: dict[str, Any], allowed: bool) -> None:
    assert decided(statement(**changes)).allowed is allowed


@pytest.mark.parametrize(
    ("condition", "room", "allowed"),
    [
        ({"StringEquals": {"cleanrooms-ml:CollaborationId": ROOM}}, ROOM, True),
        ({"StringEquals": {"CleanRooms-ML:collaborationID": [ROOM, "x"]}}, ROOM, True),
        ({"StringEquals": {"cleanrooms-ml:CollaborationId": ROOM}}, None, False),
        ({"StringEqualsIfExists": {"cleanrooms-ml:CollaborationId": ROOM}}, None, True),
        ({"StringNotEquals": {"cleanrooms-ml:CollaborationId": [ROOM, "y"]}}, ROOM, False),
        ({"StringNotEquals": {"cleanrooms-ml:CollaborationId": ROOM}}, None, True),
        ({"StringLike": {"cleanrooms-ml:CollaborationId": "11111111-*"}}, ROOM, True),
        ({"StringNotLike": {"cleanrooms-ml:CollaborationId": "11111111-*"}}, ROOM, False),
        (
            {
                "StringEquals": {"cleanrooms-ml:CollaborationId": ROOM},
                "StringLike": {"aws:PrincipalAccount": "9*"},
            },
            ROOM,
            False,
        ),
    ],
)
def test_every_condition_must_hold(condition: dict[str, Any], room: str | None, allowed: bool) -> None:
    assert decided(statement(Condition=condition), room=room).allowed is allowed


@pytest.mark.parametrize("resource", [MODEL, JOB, "*"])
def test_a_denial_wins_over_every_permission(resource: str) -> None:
    decision = decided(statement(Resource="*"), statement(Sid="No", Effect="Deny", Resource=resource))
    assert not decision.allowed
    assert "No" in decision.reason


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[]", "JSON object"),
        ("[" * 5000, "not JSON"),
        ('{"Version": "2008-10-17", "Statement": []}', "2012-10-17"),
        ('{"Statement": []}', "at least one"),
        (document(statement(Effect="Maybe")), "Effect"),
        (document(statement(Principal=None)), "Principal"),
        (document(statement(Principal={"Service": "x"})), "Principal"),
        (document(statement(Principal={"AWS": "arn:aws:iam::444455556666:role/r"})), "not told apart"),
        (document(statement(NotAction="x")), "NotAction"),
        (document(statement(Action=[])), "Action"),
        (document(statement(Resource=[1])), "Resource"),
        (document(statement(Condition={"DateLessThan": {"aws:CurrentTime": "x"}})), "DateLessThan"),
        (document(statement(Condition={"StringEquals": {"aws:SourceIp": "1"}})), "SourceIp"),
        (document(statement(Condition={"StringEquals": {}})), "at least one condition key"),
        (document(statement(Sid="a\0b")), "printable"),
        (document(statement(Sid="\ud800")), "not valid Unicode"),
        ('{"Statement": {"Effect": "Deny", "Effect": "Allow"}}', "names a member twice"),
    ],
)
def test_a_policy_that_could_not_be_honoured_is_refused(text: str, says: str) -> None:
    with pytest.raises(PolicyError, match=says):
        parse(text)


WORDS = ("Version", "Statement", "Effect", "Principal", "AWS", "Action", "Resource", "Condition")
LEAVES = st.none() | st.booleans() | st.integers() | st.text()
ANY_JSON = st.recursive(LEAVES, lambda c: st.lists(c) | st.dictionaries(st.sampled_from(WORDS) | st.text(), c))


@given(ANY_JSON)
def test_any_json_is_read_or_refused_in_words(value: Any) -> None:
    try:
        parse(json.dumps(value))
    except PolicyError as error:
        assert str(error)


def test_the_hash_is_that_of_the_bytes() -> None:
    assert digest("{}") == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
