"""Generate many answers in one batch with torch; the common prefix of their prompts is evaluated once.

A step has to read all weights from memory, so one token for sixty answers costs little more than for one answer. The
continuous batching of transformers lacks what an evaluation needs: beam search, stop strings, adapters that change
between requests, and answers that have to begin with a given text.
"""
