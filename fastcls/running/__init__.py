"""Runs: from a recipe to its folder, one or many."""
