"""The truth: formulas in float64, the bank of right and wrong implementations, and the cases made of both."""
