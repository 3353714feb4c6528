"""Graph attention, version 2, on each relation, summed over the relations into a type."""

OPTIONS = ("heads",)
STORAGES = {"dgl": ("auto",)}  # edge_softmax reads no COO alone, u_add_v no CSC alone
