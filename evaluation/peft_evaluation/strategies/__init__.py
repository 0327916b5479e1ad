"""Ways of getting an answer out of one model, one module each."""
