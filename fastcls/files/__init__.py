"""What is read from and written to the disk: run folders, downloads, weights, and the files of strangers."""
