"""A build in the formats of other trainers: plain conversations, and MDS shards."""
