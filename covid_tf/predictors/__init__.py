"""Doors to the two networks: a server over gRPC, or SavedModels in process."""
