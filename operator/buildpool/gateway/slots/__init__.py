"""Who waits for a slot, who has one, and where builds are."""
