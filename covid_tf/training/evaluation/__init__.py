"""What trained networks are worth on cases that they have not seen."""
