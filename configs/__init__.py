"""Experiments: one a file, `get_config(arg) -> ConfigDict`. Numbers and names only."""
