"""The command: ``python -m sklearn_stndt``."""

import sys

from sklearn_stndt.cli import main

if __name__ == "__main__":
    sys.exit(main())
