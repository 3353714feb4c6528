"""GraphSAGE on each relation, summed over the relations into a type."""

OPTIONS = ("aggregation",)
