"""With --trust: the network as a run's own recipe.py builds it."""
