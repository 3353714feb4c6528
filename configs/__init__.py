"""The shelf: YAML only. A package so that an installed wheel finds its own configuration."""
