"""Life cycle of the daemon: one per user, found by its info file, started on demand, stopped cleanly.

docs/daemon-lifecycle.md lists what is promised. The server itself is ``peft_daemon.server``; nothing here knows a
route or the engine.
"""
