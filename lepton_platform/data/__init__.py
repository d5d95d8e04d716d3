"""Sources, Parquet data sets, cleaning, contracts; query, update and delete."""
