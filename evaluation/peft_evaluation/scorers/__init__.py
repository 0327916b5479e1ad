"""How good an answer is, one module per idea; ``catalogue`` says what kind of figure each is."""
