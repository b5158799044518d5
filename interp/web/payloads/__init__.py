"""What each view is given, as plain JSON."""
