"""peft-daemon in JupyterLab: an extension of the Jupyter server that asks the daemon for suggestions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jupyter_server.utils import url_path_join

from peft_jupyterlab.handlers import CompleteHandler

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "peft_jupyterlab"}]


def _load_jupyter_server_extension(server: ServerApp) -> None:
    route = url_path_join(server.web_app.settings["base_url"], "peft-daemon", "complete")
    server.web_app.add_handlers(".*$", [(route, CompleteHandler)])
