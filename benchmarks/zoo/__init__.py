"""Every family of networks through the whole tool, one row each. See docs/zoo.md."""
