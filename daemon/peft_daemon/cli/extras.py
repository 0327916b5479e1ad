"""Commands that need more than the base install: whether it is there, and how its libraries behave."""

from __future__ import annotations

import logging
import os
import warnings
from importlib.util import find_spec

from peft_daemon.config import resolve
from peft_daemon.engines.threads import set_wait_policy
from peft_daemon.errors import NotFound
from peft_daemon.paths import Paths

TUNE = ("torch", "transformers", "peft", "accelerate")
EVAL = (*TUNE, "sacrebleu", "bm25s", "jinja2")
RAY = ("ray",)


def require(what: str, extra: str, packages: tuple[str, ...]) -> None:
    """Check that the extra is installed, and keep its libraries from the network and from remarks on themselves.

    Their threads wait as the settings say. Raises NotFound that says what ``what`` needs and which extra to install.
    """
    # Before torch is loaded.
    set_wait_policy(resolve(user_file=Paths.from_environment().config_file).settings.wait_policy)
    # bitsandbytes looks on the hub for kernels when it is imported.
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.filterwarnings("ignore", category=FutureWarning)
    for library in ("bitsandbytes", "transformers"):
        logging.getLogger(library).setLevel(logging.ERROR)
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise NotFound(
            f"{what} needs {', '.join(missing)}", fix=f"Install the extra: pip install 'peft-daemon[{extra}]'"
        )
