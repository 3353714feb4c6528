"""How it is computed: native graphs, native batches, native convolutions."""
