"""What was learned, in figures with intervals; runs side by side."""
