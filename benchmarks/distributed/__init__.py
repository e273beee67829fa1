"""Several processes and several jobs: docs/distributed.md."""
