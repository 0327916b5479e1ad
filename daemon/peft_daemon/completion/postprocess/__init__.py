"""Post-processing: small functions that cut and correct the model's text. `stream` has their order."""
