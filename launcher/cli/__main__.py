"""`python -m launcher.cli`: the `launch` command where it is not on the PATH."""

from launcher.cli.main import main

main()
