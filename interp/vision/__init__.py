"""Pictures, and the part of a picture that each image token shows."""
