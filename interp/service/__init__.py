"""What the page and the API both call."""
