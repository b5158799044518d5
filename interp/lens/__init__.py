"""What the model's own output side reads in its states."""
