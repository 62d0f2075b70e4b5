"""A result on disk: whole files, tables, result.json, maps."""
