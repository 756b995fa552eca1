"""Networks looked at: which there are, what each costs, how large, what a unit sees."""
