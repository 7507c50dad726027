"""``python -m gkm_ops`` is the command line ``gkm``."""

import sys

from gkm_ops.cli import main

if __name__ == "__main__":
    sys.exit(main())
