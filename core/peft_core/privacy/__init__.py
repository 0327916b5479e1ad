"""What is kept from the model, suggestions and the disk: files that hold secrets, and values that look like secrets."""
