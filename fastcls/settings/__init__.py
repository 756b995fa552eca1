"""From the words of a command, or keywords in Python, to the settings of a run."""
