"""Examples from source code: the user's own repository, or folders of other people's code.

``files`` lists the files that are learned from; ``filters`` removes secrets and duplicates; ``holes`` cuts holes.
``documents`` makes the data set of a repository: its whole code, the most important first (``importance``), judged on
the lines of the newest commits (``held_out``). ``dataset`` makes one of plain folders. ``accepted`` makes examples of
accepted suggestions. The structure of source files is in ``peft_core.code``.
"""
