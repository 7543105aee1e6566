"""The networks and their losses: pure torch, no files, no datasets."""
