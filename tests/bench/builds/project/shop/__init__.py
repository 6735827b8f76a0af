"""A shop: what things cost, and what is in the basket."""
