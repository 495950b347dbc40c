"""`python -m launcher.training RUN_FOLDER`: train a run, whatever becomes of its driver."""

import sys

from launcher.training.guardian import main

main(sys.argv[1])
