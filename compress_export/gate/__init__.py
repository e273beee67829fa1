"""Judge a finished run again: budgets and regressions, for people and for CI (docs/gate.md)."""
