"""What is kept from the model, from suggestions and from the disk: files that hold secrets, and values that look so."""
