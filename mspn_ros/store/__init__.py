"""What is stored: the backbone file, the scene bank, resumable checkpoints."""
