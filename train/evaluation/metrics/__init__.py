"""Score answers: one file per benchmark's rule, `table.METRICS` by name, and intervals of scores."""
