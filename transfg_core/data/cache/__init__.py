"""The cache of decoded images, `data.cache`: its files (files.py), filling it (build.py)."""
