"""Side-by-side measurements: one command each, ratios against a peer in the same run."""
