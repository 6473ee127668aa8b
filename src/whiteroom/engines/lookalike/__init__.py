"""Lookalike audiences from interactions: which users resemble the users of a seed.

Usable on its own:

    from whiteroom.engines.lookalike import Lookalike
    model = Lookalike(random_state=0).fit("interactions.parquet")
    audience = model.expand(seed_ids, size=10_000)

The method, its formulas and its limits are in docs/lookalike.md. Knows no account, no HTTP and no database.
"""

from whiteroom.engines.lookalike.errors import (
    InteractionsError,
    LookalikeError,
    MemoryLimitError,
    ModelFileError,
    SeedError,
)
from whiteroom.engines.lookalike.metrics import Relevance
from whiteroom.engines.lookalike.model import Lookalike
from whiteroom.engines.lookalike.ranking import Ranking
from whiteroom.engines.lookalike.sources import Schema
from whiteroom.engines.lookalike.workspace import Workspace

__all__ = [
    "InteractionsError",
    "Lookalike",
    "LookalikeError",
    "MemoryLimitError",
    "ModelFileError",
    "Ranking",
    "Relevance",
    "Schema",
    "SeedError",
    "Workspace",
]
