"""From a document and a cursor to text worth showing: formats, prompts, syntax, intents, post-processing, pipeline."""
