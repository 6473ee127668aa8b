"""`python -m benchmarks [NAME ...] [options]`: those benchmarks one after the other; without a name all, in short.

The names: server, lookalike, scale, privacy. Options are for one benchmark alone; NAME --help shows them.
"""

from __future__ import annotations

import subprocess
import sys
from itertools import takewhile

SHORT: dict[str, tuple[str, ...]] = {
    "server": (),
    "lookalike": ("--quick",),
    "scale": ("--shrink", "20"),
    "privacy": ("--quick",),
}
"""The options of a run of all."""


def main(arguments: list[str]) -> int:
    names = list(takewhile(lambda argument: argument in SHORT, arguments))
    options = arguments[len(names) :]
    if not arguments:
        return max([_run(name, *options) for name, options in SHORT.items()])
    if not names or (options and len(names) > 1):
        print(__doc__, file=sys.stderr)
        return 0 if arguments[0] in ("-h", "--help") else 2
    return max([_run(name, *options) for name in names])


def _run(name: str, *options: str) -> int:
    # A process of its own: nothing that one benchmark leaves in memory weighs on the next.
    return subprocess.call([sys.executable, "-m", f"benchmarks.{name}", *options])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
