"""Where work is done: this machine's cores, a Dask cluster, several training processes. It changes no result."""
