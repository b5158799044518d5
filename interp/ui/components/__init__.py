"""Gradio components of this app."""
