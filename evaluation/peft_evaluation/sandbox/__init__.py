"""Running code that a model wrote, where it can do no harm and cannot say that it is right."""
