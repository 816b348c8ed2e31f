"""``python -m omnimotion_core`` is the command ``omnimotion``."""

import sys

from omnimotion_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
