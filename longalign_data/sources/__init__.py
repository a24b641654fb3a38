"""Corpora in, documents out.

places      where a card's files are, told from what it writes as `path`
reading     what the readers and ingest say to each other: partitions, documents, rejects
readers     one file a format; the table READERS
snapshot    what identifies the inputs: sizes and hashes under relative names
ingest      the stage: partitions are read and measured on several processes, then merged in order
"""
