"""A whole build: which stages must run, in what order, and what is written when all stand."""
