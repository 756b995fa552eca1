"""Many runs: `comparison` tests settings against each other, `study` is the memory of a search."""
