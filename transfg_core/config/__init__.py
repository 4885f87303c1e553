"""The configuration of an experiment: typed sections, YAML files and `key=value` overrides."""
