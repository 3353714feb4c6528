"""All types folded into one graph, with one layer for all edges: the control for claims about heterogeneity."""

OPTIONS = ("aggregation", "heads", "inner")
