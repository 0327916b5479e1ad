"""Examples from the user's own code: holes with the code that belongs there, and sentences with their functions.

``files`` lists the files that are learned from; ``filters`` removes secrets and duplicates; ``holes`` cuts holes;
``dataset`` makes the data set. ``documents`` makes one that teaches the whole code, the most important first
(``importance``), and is judged on the lines of the newest commits (``held_out``). ``accepted`` makes examples of
accepted suggestions. The structure of source files is in
``peft_core.code``.
"""
