"""Names of SAE features."""
