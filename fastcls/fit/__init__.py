"""What happens while a recipe's `fit` runs."""
