"""The command line on a CPU that is said to have no bfloat16, so that training is in float32."""

import sys

import torch

from compress_export.cli import main

if __name__ == "__main__":
    torch.cpu.get_capabilities = lambda: {}  # type: ignore[assignment]
    sys.exit(main())
