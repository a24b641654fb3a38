"""General instruction data beside the built samples: sets of conversations that exist already."""
