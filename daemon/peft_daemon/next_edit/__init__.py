"""Next edits: a change of existing lines that follows from what the user changed lately."""
