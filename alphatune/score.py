"""`python -m alphatune.score`: the same as `alphatune score`."""

import sys

from alphatune.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["score", *sys.argv[1:]]))
