"""From a volume and the answers of two networks to the Corona score."""
