"""The daemon's routes, one module per protocol it speaks. Handlers translate; the work is in ``service``."""
