"""What was measured: records, the store, statistics, figures and reports. No torch in this room."""
