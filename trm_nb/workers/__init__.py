"""Tasks in parallel: a pool of local processes, or Dask."""
