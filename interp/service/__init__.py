"""What the page and the API share."""
