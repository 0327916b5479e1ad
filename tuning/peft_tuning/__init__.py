"""Tuning: adapters for the served model, made from a data set or from the user's own repository.

``run`` has the order of all steps. ``data`` gives examples; ``encode`` writes them in the served prompt formats;
``prepare`` puts trainable weights of a method on the base; ``trainer`` fits them in one loop; ``gate`` judges the
adapter; ``model_card`` describes it for the registry. The daemon does not import this package.
"""
