"""Checkpoints: fetched, loaded, and taken apart into the parts that are looked at."""
