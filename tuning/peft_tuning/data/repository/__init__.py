"""Examples from the user's own code: holes with the code that belongs there, and sentences with their functions.

``files`` lists the files that are learned from; ``filters`` takes out secrets and duplicates; ``holes`` cuts;
``dataset`` puts it together; ``accepted`` does the same with accepted suggestions. The structure of source files is in
``peft_core.code``.
"""
