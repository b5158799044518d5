"""Sparse autoencoders: loaded, applied to a trace, and named."""
