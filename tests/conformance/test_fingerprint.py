"""The service models are the ones we reviewed: a botocore bump that changes them fails with a readable diff.

After the review: `python -m whiteroom.wire.spec > tests/conformance/fingerprint.txt`
"""

from difflib import unified_diff
from pathlib import Path

import pytest

from whiteroom.wire import spec

REVIEWED = Path(__file__).with_name("fingerprint.txt")


def test_the_models_are_those_that_were_reviewed():
    reviewed = REVIEWED.read_text("utf-8").splitlines()
    diff = list(unified_diff(reviewed, spec.fingerprint().splitlines(), "reviewed", "installed", n=0, lineterm=""))
    if diff:
        pytest.fail("\n".join(["the installed botocore's models differ from the reviewed ones:", *diff[:200]]))


def test_a_models_new_member_shows_in_the_fingerprint(monkeypatch):
    shapes = spec.model("cleanroomsml").shapes
    changed = dict(shapes["CreateMLInputChannelRequest"])
    changed["members"] = {**changed["members"], "newPrivacyParameter": {"shape": "NameString"}}
    before = spec.fingerprint()
    monkeypatch.setitem(shapes, "CreateMLInputChannelRequest", changed)
    new = set(spec.fingerprint().splitlines()) - set(before.splitlines())
    assert new == {"cleanroomsml:CreateMLInputChannelRequest.newPrivacyParameter NameString body"}
