"""What the answer looked at, and what it needed: attention, gradients, activation maps, knockout, ablation."""
