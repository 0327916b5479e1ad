"""What became of suggestions, kept on this machine: stored, summed up, removed. Nothing here is sent anywhere."""
