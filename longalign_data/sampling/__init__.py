"""Which documents to take: weighted sampling without replacement, by length, language and source."""
