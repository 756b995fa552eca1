"""What runs work without: trackers, and the page that predicts."""
