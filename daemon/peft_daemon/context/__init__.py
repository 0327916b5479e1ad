"""Code of other files that a completion is shown with: an index of the workspace, what is taken of it, and when.

Reads from left to right: ``postings`` finds passages by their words; ``index`` keeps them and the names files define;
``selection`` chooses for a cursor; ``worker`` does that in a process of its own, ``child`` talks to it; ``stable``
says when a document's chunks may change; ``repository`` is what the service asks.
"""
