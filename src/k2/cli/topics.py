"""`k2 topics`: creates the topics that are missing, and shows all of them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from k2.cli.console import wide_console
from k2.cli.options import DataDirOption


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(name="topics")(topics)


def topics(
    data_dir: DataDirOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Create the topics of topics.yaml that are missing, and show all with what each partition holds."""
    import json

    from rich.table import Table

    from k2 import bootstrap
    from k2.settings import load_settings

    settings = load_settings(data_dir)
    catalog = bootstrap.topic_catalog(settings)
    admin = bootstrap.log_admin(settings)
    try:
        created = set(admin.create_topics(catalog.all_topics))
        ranges = admin.ranges([topic.name for topic in catalog.all_topics])
    finally:
        admin.close()
    entries: list[dict[str, Any]] = [
        {
            "name": topic.name,
            "data_type": topic.data_type,
            "exchange": topic.exchange,
            "partitions": topic.partitions,
            "offsets": {
                str(part): [found.start, found.end] for (name, part), found in ranges.items() if name == topic.name
            },
            "created": topic.name in created,
        }
        for topic in catalog.all_topics
    ]
    if as_json:
        typer.echo(json.dumps({"topics": entries}, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for name in ("topic", "partitions", "offsets held", ""):
        table.add_column(name, justify="left" if name in ("topic", "") else "right")
    for entry in entries:
        held = sum(end - start for start, end in entry["offsets"].values())
        table.add_row(entry["name"], str(entry["partitions"]), f"{held:,}", "created" if entry["created"] else "")
    wide_console().print(table)
