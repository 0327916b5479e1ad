"""Answering a request as soon as can be: places, running and kept generations, the rhythm of typing."""
