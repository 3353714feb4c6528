"""One file a verb; each defines ``run(arguments)`` and imports what is heavy inside it."""
