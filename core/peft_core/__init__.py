"""The ground floor of peft-daemon: what every other package may import, and what imports none of them."""

__version__ = "0.1.0"
