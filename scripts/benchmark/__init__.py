"""What scripts/bench runs: one hop side by side with its neighbours, and a whole order flow."""
