"""Examples from the user's own code: holes with what belongs in them, and sentences with their functions.

Reads from left to right: ``git`` and ``files`` say which files count; ``secrets`` takes out what nobody may learn;
``structure`` finds functions and blocks; ``duplicates`` drops what is there twice; ``holes`` and ``intents`` cut;
``related`` adds context from other files; ``holdout`` says who may see what; ``dataset`` puts it together.
"""
