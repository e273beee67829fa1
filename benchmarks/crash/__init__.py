"""Runs that are stopped in every way, and what becomes of them."""
