"""A capture as a Chrome trace, CSV, Parquet or Markdown."""
