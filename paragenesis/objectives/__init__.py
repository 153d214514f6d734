"""What is wanted of a crystal: goals, the objective contract, and the built-in objectives."""
