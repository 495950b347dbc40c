"""`python -m launcher.training RUN_FOLDER`: train a run, whatever becomes of its driver."""

import sys

from launcher.training.driver_reaper import main

main(sys.argv[1])
