"""`python -m alphatune.search`: the same as `alphatune search`."""

import sys

from alphatune.search.search import main

sys.exit(main())
