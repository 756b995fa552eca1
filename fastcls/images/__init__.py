"""Image files: opened, refused, measured for a network, decoded once and kept."""
