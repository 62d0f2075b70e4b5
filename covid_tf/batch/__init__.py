"""Many studies, each scored exactly once: on this machine or a Dask cluster."""
