"""Finding the training examples most like a question."""
