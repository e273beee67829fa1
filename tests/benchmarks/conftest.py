"""Scripts of benchmarks/ import their neighbours, as they find them when they are run."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
