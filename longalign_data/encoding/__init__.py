"""Samples to sequences: chat templates, targets by construction, and what to do with the over-long."""
