"""Curation of single documents, and of a corpus against itself: each a pure function over a document's text."""
