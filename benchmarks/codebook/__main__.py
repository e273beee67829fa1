"""`python -m benchmarks.codebook`."""

from __future__ import annotations

from benchmarks.codebook.run import main

if __name__ == "__main__":
    main()
