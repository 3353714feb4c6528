"""Heterogeneous graph transformer: typed keys, queries and values, a matrix and a prior for each relation."""

OPTIONS = ("heads",)
STOCK = {"dgl": "DGL's HGTConv has no biases on keys, queries, values and output, and no GELU before the output"}
STORAGES = {"pyg": ("coo",), "dgl": ("auto",)}  # PyG joins all relations into COO; DGL runs on a fold
OPS = {"pyg": ("traceable",)}  # HGTConv cuts its rows where the data say
