"""The state machines speak the service model's language and reach every state that they have."""

from __future__ import annotations

import botocore.session
import pytest

from whiteroom.rooms.states import STATES

ENUMS = {
    "training-dataset": "TrainingDatasetStatus",
    "audience-model": "AudienceModelStatus",
    "configured-audience-model": "ConfiguredAudienceModelStatus",
    "audience-generation-job": "AudienceGenerationJobStatus",
    "audience-export-job": "AudienceExportJobStatus",
}


@pytest.mark.parametrize("kind", STATES)
def test_the_states_are_those_of_the_model(kind: str) -> None:
    model = botocore.session.get_session().get_service_model("cleanroomsml")
    assert set(STATES[kind]) == set(model.shape_for(ENUMS[kind]).enum)


@pytest.mark.parametrize("kind", STATES)
def test_every_state_is_reached_from_the_first(kind: str) -> None:
    first = next(iter(STATES[kind]))
    reached, new = set(), {first}
    while new:
        reached |= new
        new = {to for state in reached for to in STATES[kind][state]} - reached
    assert reached == set(STATES[kind])
