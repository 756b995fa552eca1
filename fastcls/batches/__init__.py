"""From kept images to augmented batches, seeded by epoch and image."""
