"""The build folder: Parquet shards that appear whole, what is known of each stage, and how to read them back."""
