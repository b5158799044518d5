"""One generation with every layer kept, and ways to name positions in it."""
