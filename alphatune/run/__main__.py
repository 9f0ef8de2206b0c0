"""`python -m alphatune.run`: the same as `alphatune run`."""

import sys

from alphatune.__main__ import main

sys.exit(main(["run", *sys.argv[1:]]))
