"""What is wrong with a dataset: `audit` turns what `measure` finds of each file into findings."""
