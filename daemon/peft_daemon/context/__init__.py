"""Code of other files that is shown to the model: an index of the workspace, and the choice of chunks from it.

``repository`` is what the service calls; it also decides when a document's chunks may change. It asks, through
``index_client``, the process in ``index_process``, where ``index`` finds passages and definitions, and ``selection``
chooses the chunks for a cursor.
"""
