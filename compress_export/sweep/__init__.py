"""Many jobs side by side: boards, targets and seeds of one file, on Ray."""
