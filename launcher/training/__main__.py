"""`python -m launcher.training RUN_FOLDER`: the driver of one run."""

import sys

from launcher.training.driver import main

main(sys.argv[1])
