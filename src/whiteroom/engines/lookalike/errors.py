"""What can be wrong with what the engine is given. All are ValueErrors with a sentence a user can act on."""


class LookalikeError(ValueError):
    """The engine cannot work with what it was given."""


class InteractionsError(LookalikeError):
    """The training data cannot be used: a column is missing or has an unusable type or value, or no row is left."""


class MemoryLimitError(LookalikeError):
    """The training data need more memory, or more room on the disk, than they may use."""


class SeedError(LookalikeError):
    """The seed cannot be used: it is empty, holds something that is no id, or matches no user of the model."""


class ModelFileError(LookalikeError):
    """A directory does not hold a whole model of this format."""
