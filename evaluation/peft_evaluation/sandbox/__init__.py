"""Run generated code in a sandbox, where it can do no harm and cannot forge the result of its tests."""
