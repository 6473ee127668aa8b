"""`python -m benchmarks [server|lookalike] [options]`: all benchmarks, the longer ones in short, or one of them."""

from __future__ import annotations

import subprocess
import sys

QUICK = {"server": (), "lookalike": ("--quick",)}
"""The options of a run of all."""


def main(arguments: list[str]) -> int:
    if not arguments:
        return max([_run(name, *options) for name, options in QUICK.items()])
    if arguments[0] not in QUICK:
        print(__doc__, file=sys.stderr)
        return 0 if arguments[0] in ("-h", "--help") else 2
    return _run(*arguments)


def _run(name: str, *options: str) -> int:
    # A process of its own: nothing that one benchmark leaves in memory weighs on the next.
    return subprocess.call([sys.executable, "-m", f"benchmarks.{name}", *options])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
