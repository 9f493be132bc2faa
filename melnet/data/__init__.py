"""Data sets on disk: Parquet shards, their splits and normalisation, batches, atomic writes."""
