"""Subcommands: one typer function each, which returns the action that `cli.main` runs."""
