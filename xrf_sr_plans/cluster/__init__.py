"""One GPU cluster for many beamlines, on Dask.distributed: how it is reached and what it does."""
