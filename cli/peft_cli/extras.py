"""Commands that need more than the base install: whether it is there, and how its libraries behave."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
import warnings
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from urllib.parse import urlsplit
from urllib.request import url2pathname

from peft_core.errors import NotFound
from peft_core.paths import Paths
from peft_core.settings import resolve
from peft_daemon.engines.base import set_wait_policy

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
        raise NotFound(f"{what} needs {', '.join(missing)}", fix=f"Install the extra: {install_command(extra)}")


def install_command(extra: str) -> str:
    """What to type to add the extra to this installation, from where the package itself came from."""
    wanted = f"peft-daemon[{extra}]"
    try:
        origin = json.loads(distribution("peft-daemon").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        origin = {}
    url = str(origin.get("url", ""))
    if origin.get("dir_info", {}).get("editable"):
        wanted = f"-e {shlex.quote(f'{url2pathname(urlsplit(url).path)}[{extra}]')}"
    else:
        wanted = shlex.quote(f"{wanted} @ {url}" if url else wanted)
    return f"{shlex.quote(sys.executable)} -m pip install {wanted}"
