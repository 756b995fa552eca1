"""What a network has learned: one inference pass, and everything that follows from it."""
