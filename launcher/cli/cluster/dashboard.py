"""launch cluster dashboard: Ray's own web page, through a tunnel to the head's loopback."""

from __future__ import annotations

import time
import webbrowser

import click

from launcher.cli.options import json_option
from launcher.cli.render.table import print_json
from launcher.config.cluster_file import load_cluster
from launcher.errors import InputError
from launcher.raycluster.control import host_state
from launcher.raycluster.spec import cluster_folder
from launcher.remote.open_runs import open_cluster_runs

POLL_SECONDS = 1.0


@click.command()
@click.argument("cluster")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Here; else a free one.")
@click.option("--no-browser", is_flag=True, help="Print the address only.")
@json_option
def command(cluster: str, port: int, no_browser: bool, as_json: bool) -> None:
    """Open the dashboard. It asks for the cluster's token, which is printed beside the address.

    The tunnel lasts until Ctrl-C. The page is reached by this machine alone.
    """
    with open_cluster_runs(load_cluster(cluster)) as runs:
        spec, head = runs.spec, runs.head
        if not host_state(head, spec.cluster).is_running:
            raise InputError(
                f"cluster {spec.cluster} is down", fix=f"launch cluster up {spec.cluster}"
            )
        token = head.read(f"{cluster_folder(spec.cluster)}/token").decode().strip()
        try:
            tunnel = head.forward(spec.ports.dashboard, local_port=port)
        except OSError as error:
            raise InputError(
                f"--port {port}: cannot listen there ({error.strerror})", fix="leave --port out"
            ) from None
        url = f"http://127.0.0.1:{tunnel.port}/"
        if as_json:
            print_json({"cluster": spec.cluster, "url": url, "token": token})
        else:
            click.echo(f"{url}\ntoken: {token}\nCtrl-C closes the tunnel")
        if not (no_browser or as_json):
            webbrowser.open(url)
        try:
            while True:
                head.run(":", step="keep the tunnel")
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            pass
        finally:
            tunnel.close()
