"""Settings: a recipe's knobs and every run's options, from words to a request."""
