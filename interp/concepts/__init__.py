"""Concepts: what the states of a model over many samples are made of, how fine-tuning moved it, and steering by it."""
