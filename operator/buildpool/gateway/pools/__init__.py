"""Which pools there are: what the operator says of them, and where their builders are."""
