"""What is computed: tables, keys, times, seeds, metrics. No torch in this room."""
