"""`python -m whiteroom`, as the server starts its own worker and jobs."""

from whiteroom.cli import main

main()
