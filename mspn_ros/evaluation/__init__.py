"""Tables, plots, offline replay, reports; takes plain records, also those of a live node."""
