"""The program beside the registry of a managed cache: it vouches for caches and makes room."""
