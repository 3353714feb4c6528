"""Relational graph convolution: a mean and a matrix for each relation, one root weight for all nodes."""

OPTIONS = ("bases",)
STOCK = {"dgl": "DGL's RelGraphConv sums over the edges of a relation unless it is given a norm"}
STORAGES = {"pyg": ("coo",), "dgl": ("auto",)}  # both layers run on a fold of their own, whatever the batch's form
OPS = {"pyg": ("traceable",)}  # RGCNConv selects edges by a mask
