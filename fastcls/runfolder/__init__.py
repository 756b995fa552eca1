"""The run folder: its files, their columns and checks."""
