"""A trained model classifies images that belong to no data set."""
