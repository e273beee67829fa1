"""`python -m benchmarks.zoo`."""

from __future__ import annotations

import sys

from benchmarks.zoo.run import main

if __name__ == "__main__":
    sys.exit(main())
