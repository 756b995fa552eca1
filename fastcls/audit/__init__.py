"""What is wrong with a dataset: measured file by file, judged, told."""
