"""Reports: one format, its tables, and where the numbers come from."""
