"""Every `statusDetails.statusCode` the service may answer, one sentence each. A code, once published, stays.

`docs/status-codes.md` is made from this table; a test compares them.
"""

from __future__ import annotations

from typing import Final

from whiteroom.data.errors import STATUS_CODES as DATA_CODES

STATUS_CODES: Final[dict[str, str]] = {
    **DATA_CODES,
    "INSUFFICIENT_USERS": "The training data hold too few distinct users with at least two interactions.",
    "INSUFFICIENT_INTERACTIONS": "The training data hold too few interactions.",
    "INVALID_TRAINING_DATA": "The training data hold values that no model can be made of, such as null ids.",
    "SEED_MATCH_BELOW_MINIMUM": "The model knows fewer users of the seed than its owner asks for, or hardly more.",
    "SEED_COVERS_MODEL": "So many users of the model are in the seed that too few are left to rank.",
    "SEED_REJECTED": "The seed cannot be used; the account that started the job sees why.",
    "MODEL_UNAVAILABLE": "The audience model cannot be used; its owner sees why.",
    "AUDIENCE_SIZE_BELOW_MINIMUM": "The audience would hold fewer users than may be exported.",
    "CANCELLED": "The job was cancelled before it was done.",
    "OUT_OF_MEMORY": "The job needed more memory than the server gives it, and was ended.",
    "INTERNAL_ERROR": "The server failed, after all its attempts; its log says more.",
}
