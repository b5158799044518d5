"""Training an SAE on a study's samples: states in parts on the disk, a shuffled stream of them, figures on samples that were held out."""
