"""The clean room: what its parties may do, and what becomes of it. Knows no HTTP, no SQL engine, no container.

Importing this package registers every operation that is served.
"""

from whiteroom.rooms import (
    audience_export,
    audience_generation,
    audience_models,
    configured_audience_models,
    lifecycle,
    tags,
    training_data,
)

__all__ = ["JOB_KINDS", "configured_audience_models", "tags", "training_data"]

JOB_KINDS = (audience_models.CREATE, audience_generation.CREATE, audience_export.CREATE, lifecycle.DELETE)
