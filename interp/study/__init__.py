"""Studies: an SAE's features over many pictures, from caching to explaining and scoring them, one command each."""
