"""The page of results: reads finished runs, writes tables and pictures; measures nothing."""
