"""`python -m alphatune.table`: the same as `alphatune table`."""

import sys

from alphatune.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["table", *sys.argv[1:]]))
