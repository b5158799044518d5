"""Answers with directions of the residual stream turned up or down."""
