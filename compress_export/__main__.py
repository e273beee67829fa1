"""`python -m compress_export` is the console script."""

import sys

from compress_export.cli import main

sys.exit(main())
