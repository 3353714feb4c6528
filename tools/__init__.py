"""Scripts around a checkout that are no part of the package: wheels for machines without a network."""
