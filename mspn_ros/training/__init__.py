"""Learning the backbone and the scene bank offline."""
