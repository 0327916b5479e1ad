"""Handlers of the client's messages: a module for each request, named as its method, and one for all notifications."""
