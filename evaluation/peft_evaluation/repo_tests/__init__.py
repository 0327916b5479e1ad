"""Judge answers by the user's own tests: find their interpreter, and find out which holes the tests exercise."""
