"""Readers of published data sets: their own lists, turned into a `Listing`."""
