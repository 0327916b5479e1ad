"""peft-daemon: a local code-completion service that learns the code it works on."""

__version__ = "0.1.0"
