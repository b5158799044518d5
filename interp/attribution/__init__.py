"""Which sparse-autoencoder features carried a word of the answer."""
