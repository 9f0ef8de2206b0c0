"""`python -m alphatune.run`: the same as `alphatune run`."""

import sys

from alphatune.run.execute import main

sys.exit(main())
