"""Temporary."""
from .lens_view import standalone_html
__all__ = ["standalone_html"]
