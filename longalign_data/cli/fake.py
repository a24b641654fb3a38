"""`longalign fake-provider`: rehearse a whole run, faults and bill included, without a key."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds `fake-provider`."""
    app.command("fake-provider")(fake_provider)


def fake_provider(
    scenario: Annotated[
        Path | None, typer.Option("--scenario", help="A YAML file of limits, faults and prices.", show_default=False)
    ] = None,
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 takes a free one.")] = 8089,
    log: Annotated[
        Path | None, typer.Option("--log", help="Write every request to this file, JSON lines.", show_default=False)
    ] = None,
) -> None:
    """Serve a provider that needs no model: Messages, Chat Completions and both batch APIs.

    Its answers come from the offline teacher. Stop it with Ctrl-C; it then says what the run would have cost.
    """
    from longalign_data.errors import UserError
    from longalign_data.teachers.fake import FakeServer, Scenario, load_scenario

    wanted = load_scenario(scenario) if scenario is not None else Scenario()
    try:
        server = FakeServer(wanted, host=host, port=port, log=log)
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: cannot listen there: {error.strerror}") from error
    typer.echo(f"fake provider at {server.url}" + (" (any key)" if wanted.key is None else ""))
    typer.echo(
        f"  anthropic: ANTHROPIC_API_KEY=fake longalign build RECIPE --output rehearsal --teacher-url {server.url}"
    )
    typer.echo(
        f"  openai:    OPENAI_API_KEY=fake longalign build RECIPE --output rehearsal --teacher-url {server.url}/v1"
    )
    try:
        server.serve()
    except KeyboardInterrupt:
        meter = server.state.meter
        replies = meter["live_replies"] + meter["batch_replies"]
        typer.echo(f"\n{replies:,} replies, {server.state.usd():.4f} dollars by the scenario's prices")
