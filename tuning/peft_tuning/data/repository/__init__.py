"""Examples from the user's own code: holes with what belongs in them, and sentences with their functions.

Reads from left to right: ``files`` says which files count; ``secrets`` takes out what nobody may learn; ``duplicates``
drops what is there twice; ``holes`` and ``intents`` cut; ``holdout`` says who may see what; ``dataset`` puts it
together. What a source file is, how it is built and what it says of others is in ``peft_core.code``.
"""
