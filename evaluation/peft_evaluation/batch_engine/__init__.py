"""Many answers at once in torch: prompts' common beginning read once, the rest side by side, and one step for all.

Where weights have to be fetched for every token, a token for sixty answers costs little more than one for a single
answer. transformers has continuous batching of its own, but without beams, stop strings, adapters that change between
requests, or answers that have to begin with a text; all of these an evaluation needs.
"""
