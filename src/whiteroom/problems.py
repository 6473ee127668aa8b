"""The one error that the command line turns into a sentence; it knows nothing else."""


class Problem(Exception):
    """Something the person at the terminal can act on; the message says what it is and what to do."""
