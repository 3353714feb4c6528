"""Graph attention, version 2, on each relation, summed over the relations into a type."""

OPTIONS = ("heads",)
