"""Examples of next edits from histories: ``windows`` makes those of a commit, ``history`` a data set."""
