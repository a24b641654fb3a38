"""Looking into a build: SQL over every table, statistics, one sample as a person reads it. Nothing here changes a build."""
