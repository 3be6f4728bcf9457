"""Images rendered once and kept in Zarr."""
